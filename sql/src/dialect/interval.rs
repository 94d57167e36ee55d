//! Intervals of fixed length, in milliseconds.

use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use datafusion::sql::sqlparser::ast::{Expr, Interval, Value};
use tidemill_core::{Code, Error, Result};

const MS_PER_DAY: i64 = 86_400_000;

/// Reads `INTERVAL '5 seconds'`, `INTERVAL '5' SECOND`, or the bare string `'5 seconds'`.
pub(crate) fn interval_ms(expr: &Expr) -> Result<i64> {
    let text = match expr {
        Expr::Interval(Interval { value, leading_field: Some(unit), last_field: None, .. }) => {
            format!("{} {unit}", literal(value)?)
        }
        Expr::Interval(Interval { value, leading_field: None, last_field: None, .. }) => literal(value)?,
        other => literal(other)?,
    };
    text_ms(&text)
}

/// Reads `5 seconds`, `1 minute 30 seconds`, `500 milliseconds`.
pub(crate) fn text_ms(text: &str) -> Result<i64> {
    let wrong = |why: &str| {
        Error::new(Code::InvalidStatement, format!("`{text}` is no interval of fixed length: {why}"))
            .hint("such as '5 seconds', '1 minute', '2 hours' or '1 day'")
    };
    if !text.chars().any(char::is_alphabetic) {
        return Err(wrong("it has no unit"));
    }
    let interval = parse_interval_month_day_nano(text).map_err(|_| wrong("it does not read"))?;
    if interval.months != 0 {
        return Err(wrong("months and years vary"));
    }
    if interval.nanoseconds % 1_000_000 != 0 {
        return Err(wrong("the smallest unit is the millisecond"));
    }
    let ms = i64::from(interval.days) * MS_PER_DAY + interval.nanoseconds / 1_000_000;
    if ms < 0 { Err(wrong("it is negative")) } else { Ok(ms) }
}

fn literal(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Ok(text.clone()),
            Value::Number(text, _) => Ok(text.to_string()),
            _ => Err(no_interval(expr)),
        },
        _ => Err(no_interval(expr)),
    }
}

fn no_interval(expr: &Expr) -> Error {
    Error::new(Code::InvalidStatement, format!("expected an interval, found `{expr}`"))
        .hint("such as INTERVAL '1 minute'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::parse_expr;

    fn ms(text: &str) -> Result<i64> {
        interval_ms(&parse_expr(text).unwrap())
    }

    #[test]
    fn reads_every_spelling() {
        assert_eq!(ms("INTERVAL '5 seconds'").unwrap(), 5_000);
        assert_eq!(ms("INTERVAL '5' SECOND").unwrap(), 5_000);
        assert_eq!(ms("INTERVAL 5 MINUTE").unwrap(), 300_000);
        assert_eq!(ms("INTERVAL '1 minute 30 seconds'").unwrap(), 90_000);
        assert_eq!(ms("'250 milliseconds'").unwrap(), 250);
        assert_eq!(ms("INTERVAL '2 days'").unwrap(), 172_800_000);
    }

    #[test]
    fn refuses_what_has_no_fixed_length() {
        for text in ["INTERVAL '1 month'", "INTERVAL '-1 second'", "INTERVAL 'soon'", "ts", "INTERVAL '7'"] {
            assert_eq!(ms(text).unwrap_err().code, Code::InvalidStatement, "{text}");
        }
    }
}
