//! Numbers without their points, calculated in 256 bits where 128 may not do.

use super::digits::Digits;
use arrow::array::{ArrowNativeTypeOp, Decimal128Array};
use arrow::compute::try_binary;
use arrow::datatypes::{Decimal128Type, DecimalType, i256};
use arrow::error::ArrowError;

/// # Errors
/// Division by zero, and a quotient of more digits than `result` has.
pub(super) fn quotients(
    left: &Decimal128Array,
    right: &Decimal128Array,
    result: Digits,
) -> Result<Decimal128Array, ArrowError> {
    // A quotient has the result's scale when its dividend has the scales of result and divisor together.
    let shift = result.scale + i32::from(right.scale()) - i32::from(left.scale());
    let (up, down) = (ten_to(shift), ten_to(-shift));
    let narrow = up.to_i128().zip(down.to_i128());
    let quotients = try_binary::<_, _, _, Decimal128Type>(left, right, |dividend: i128, divisor: i128| {
        if divisor == 0 {
            return Err(ArrowError::DivideByZero);
        }
        let scaled = narrow.and_then(|(up, down)| dividend.checked_mul(up).zip(divisor.checked_mul(down)));
        let quotient = match scaled {
            Some((dividend, divisor)) => Some(rounded(dividend, divisor)),
            // A dividend that leaves 256 bits has 77 digits and a divisor 38, so the quotient has too many as well.
            None => i256::from_i128(dividend).checked_mul(up).and_then(|dividend| {
                rounded(dividend, i256::from_i128(divisor).wrapping_mul(down)).to_i128()
            }),
        };
        quotient.filter(|quotient| result.holds(*quotient)).ok_or_else(|| {
            too_large(&format!("{} / {}", text(dividend, left.scale()), text(divisor, right.scale())), result)
        })
    })?;
    quotients.with_precision_and_scale(result.precision as u8, result.scale as i8)
}

/// # Errors
/// A product of more digits than `result` has.
pub(super) fn products(
    left: &Decimal128Array,
    right: &Decimal128Array,
    result: Digits,
) -> Result<Decimal128Array, ArrowError> {
    let down = ten_to(i32::from(left.scale()) + i32::from(right.scale()) - result.scale);
    let products = try_binary::<_, _, _, Decimal128Type>(left, right, |one: i128, other: i128| {
        let product = i256::from_i128(one).wrapping_mul(i256::from_i128(other));
        rounded(product, down).to_i128().filter(|product| result.holds(*product)).ok_or_else(|| {
            too_large(&format!("{} * {}", text(one, left.scale()), text(other, right.scale())), result)
        })
    })?;
    products.with_precision_and_scale(result.precision as u8, result.scale as i8)
}

/// Rounded as SQL does it, half away from zero (HALF_UP). The divisor is not zero.
pub(super) fn rounded<N: ArrowNativeTypeOp>(dividend: N, divisor: N) -> N {
    let magnitude = |number: N| if number.is_lt(N::ZERO) { number.neg_wrapping() } else { number };
    let quotient = dividend.div_wrapping(divisor);
    let rest = magnitude(dividend.sub_wrapping(quotient.mul_wrapping(divisor)));
    // Less than half of the divisor; twice the rest might overflow.
    if rest.is_lt(magnitude(divisor).sub_wrapping(rest)) {
        quotient
    } else if dividend.is_lt(N::ZERO) == divisor.is_lt(N::ZERO) {
        quotient.add_wrapping(N::ONE)
    } else {
        quotient.sub_wrapping(N::ONE)
    }
}

/// One where the exponent is negative. No exponent here exceeds 76, which 256 bits hold.
fn ten_to(exponent: i32) -> i256 {
    i256::from_i128(10).wrapping_pow(exponent.max(0).unsigned_abs())
}

fn text(number: i128, scale: i8) -> String {
    Decimal128Type::format_decimal(number, u8::MAX, scale)
}

fn too_large(operation: &str, result: Digits) -> ArrowError {
    let Digits { precision, scale } = result;
    ArrowError::ArithmeticOverflow(format!("{operation} does not fit DECIMAL({precision}, {scale})"))
}
