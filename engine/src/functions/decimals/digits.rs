//! How many digits a result has: `org.apache.spark.sql.types.DecimalType` with
//! `spark.sql.decimalOperations.allowPrecisionLoss`, which is Spark's default.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

const MOST: i32 = DECIMAL128_MAX_PRECISION as i32;

/// Digits behind the point that a result keeps when it has too many digits (Spark's `MINIMUM_ADJUSTED_SCALE`).
const FEWEST_BEHIND: i32 = 6;

/// Digits that a BIGINT needs.
const WHOLE: i32 = 20;

/// Digits of a DECIMAL: all of them, and those behind the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digits {
    pub(super) precision: i32,
    pub(super) scale: i32,
}

impl Digits {
    /// Of the exact numbers that are calculated with here. A negative scale is DataFusion's business.
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        let (precision, scale) = match data_type {
            DataType::Decimal128(precision, scale) if *scale >= 0 => {
                (i32::from(*precision), i32::from(*scale))
            }
            DataType::Int8 | DataType::UInt8 => (3, 0),
            DataType::Int16 | DataType::UInt16 => (5, 0),
            DataType::Int32 | DataType::UInt32 => (10, 0),
            DataType::Int64 | DataType::UInt64 => (WHOLE, 0),
            _ => return None,
        };
        Some(Self { precision, scale })
    }

    /// An integer that is written in the statement has its own digits, not those of its type.
    pub(super) fn of_literal(expr: &Expr) -> Option<Self> {
        let number = match expr {
            Expr::Literal(ScalarValue::Int64(Some(number)), _) => number.unsigned_abs(),
            Expr::Literal(ScalarValue::UInt64(Some(number)), _) => *number,
            _ => return None,
        };
        Some(Self { precision: number.checked_ilog10().unwrap_or(0) as i32 + 1, scale: 0 })
    }

    pub(super) fn data_type(self) -> DataType {
        DataType::Decimal128(self.precision as u8, self.scale as i8)
    }

    /// Whether a number of that scale, without its point, has no more digits.
    pub(super) fn holds(self, number: i128) -> bool {
        Decimal128Type::is_valid_decimal_precision(number, self.precision as u8)
    }

    pub(super) fn quotient(self, divisor: Self) -> Self {
        let scale = FEWEST_BEHIND.max(self.scale + divisor.precision + 1);
        Self::bounded(self.precision - self.scale + divisor.scale + scale, scale)
    }

    pub(super) fn product(self, other: Self) -> Self {
        Self::bounded(self.precision + other.precision + 1, self.scale + other.scale)
    }

    /// Whether DataFusion's product, which has all digits behind the point, would have none to spare before it.
    /// There Spark's rule is taken; elsewhere it would only lose digits.
    pub(super) fn crowds(self, other: Self) -> bool {
        self.precision + other.precision + 1 > MOST && self.scale + other.scale > MOST - WHOLE
    }

    /// Keeps the digits before the point, and behind it what room is left, but [`FEWEST_BEHIND`] at least.
    fn bounded(precision: i32, scale: i32) -> Self {
        if precision <= MOST {
            return Self { precision, scale };
        }
        let before = precision - scale;
        Self { precision: MOST, scale: (MOST - before).max(scale.min(FEWEST_BEHIND)) }
    }
}
