//! What a JSON number or string means as a number, a time or a date.

use super::cursor::Number;
use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use arrow::datatypes::{Date32Type, Decimal128Type, DecimalType, TimeUnit};
use chrono::Utc;

/// Powers of ten that a double holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The nearest double; infinite when there is none.
///
/// Two exact doubles and one rounding give the right answer (Clinger 1990); the rest is the library's.
#[inline]
pub(super) fn float(number: &Number<'_>) -> f64 {
    let power = TENS.get(number.exponent.unsigned_abs() as usize);
    match power {
        Some(power) if number.exact && number.mantissa < 1 << 53 => {
            let mantissa = number.mantissa as f64;
            let value = if number.exponent < 0 { mantissa / power } else { mantissa * power };
            if number.negative { -value } else { value }
        }
        _ => {
            std::str::from_utf8(number.text).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::INFINITY)
        }
    }
}

/// The integer that the number is; `None` when it has a fraction or more digits than any integer column.
#[inline]
pub(super) fn integer(number: &Number<'_>) -> Option<i128> {
    if !number.exact {
        return if number.exponent == 0 { std::str::from_utf8(number.text).ok()?.parse().ok() } else { None };
    }
    let mantissa = i128::from(number.mantissa);
    let value = match number.exponent {
        0 => mantissa,
        _ if mantissa == 0 => 0,
        1..=19 => mantissa * 10i128.pow(number.exponent.unsigned_abs()),
        -19..=-1 => {
            let power = 10i128.pow(number.exponent.unsigned_abs());
            if mantissa % power != 0 {
                return None;
            }
            mantissa / power
        }
        _ => return None,
    };
    Some(if number.negative { -value } else { value })
}

/// A time of RFC 3339, or without a zone, which then is UTC.
#[inline]
pub(super) fn timestamp(text: &str, unit: TimeUnit) -> Option<i64> {
    let time = string_to_datetime(&Utc, text).ok()?;
    match unit {
        TimeUnit::Second => Some(time.timestamp()),
        TimeUnit::Millisecond => Some(time.timestamp_millis()),
        TimeUnit::Microsecond => Some(time.timestamp_micros()),
        TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
    }
}

/// Milliseconds since the epoch in another unit, rounded down to seconds.
#[inline]
pub(super) fn from_millis(millis: i128, unit: TimeUnit) -> Option<i64> {
    let value = match unit {
        TimeUnit::Second => millis.div_euclid(1000),
        TimeUnit::Millisecond => millis,
        TimeUnit::Microsecond => millis.checked_mul(1000)?,
        TimeUnit::Nanosecond => millis.checked_mul(1_000_000)?,
    };
    i64::try_from(value).ok()
}

pub(super) fn date(text: &str) -> Option<i32> {
    Date32Type::parse(text)
}

/// Rounded to `scale` digits; `None` when more than `precision` digits are left.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let value = parse_decimal::<Decimal128Type>(text, precision, scale).ok()?;
    Decimal128Type::validate_decimal_precision(value, precision, scale).ok()?;
    Some(value)
}
