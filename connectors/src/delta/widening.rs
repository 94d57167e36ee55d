//! Columns that get a wider type while their files stay as they are: Delta's type widening.
//!
//! Files keep the narrower type, and whoever reads them casts. So only changes that lose nothing are legal, and the
//! log tells each of them.

use serde_json::{Value, json};
use tidemill_core::{Code, Error, Result};

/// The feature, which readers and writers have to know.
pub(super) const FEATURE: &str = "typeWidening";
/// The property that allows it.
pub(super) const ENABLED: &str = "delta.enableTypeWidening";
/// The changes of a column's type, in its metadata.
const CHANGES: &str = "delta.typeChanges";

/// Integers from the narrowest on, with the digits of a decimal that holds each by Delta's protocol.
const INTEGERS: &[(&str, u8)] = &[("byte", 10), ("short", 10), ("integer", 10), ("long", 20)];

/// Gives a field, as the log has it, the type `to`, in the log's words too.
pub(super) fn widen(field: &mut Value, to: &Value) -> Result<()> {
    let from = field["type"].clone();
    if from == *to {
        return Ok(());
    }
    if !from.as_str().zip(to.as_str()).is_some_and(|(from, to)| is_wider(from, to)) {
        let name = field["name"].as_str().unwrap_or_default();
        let message = format!("the type of column `{name}` cannot be changed from {from} to {to}");
        return Err(Error::new(Code::Unsupported, message).hint(
            "a column widens: TINYINT to SMALLINT, INT, BIGINT; integers up to INT to DOUBLE; integers to DECIMAL of at \
             least 10 digits before the point, of BIGINT 20; REAL to DOUBLE; DECIMAL to more digits before and behind the \
             point; else CREATE TABLE another AS SELECT CAST(…), or a view that casts it",
        ));
    }
    let changes = &mut field["metadata"][CHANGES];
    if !changes.is_array() {
        *changes = json!([]);
    }
    if let Some(changes) = changes.as_array_mut() {
        changes.push(json!({ "fromType": from, "toType": to }));
    }
    field["type"] = to.clone();
    Ok(())
}

fn is_wider(from: &str, to: &str) -> bool {
    let place = |name: &str| INTEGERS.iter().position(|(integer, _)| *integer == name);
    match (place(from), place(to)) {
        (Some(from), Some(to)) => from < to,
        // A double holds each of 32 bits.
        (Some(_), None) if to == "double" => from != "long",
        (Some(from), None) => decimal(to).is_some_and(|(digits, scale)| digits - scale >= INTEGERS[from].1),
        _ => {
            let more = |((digits, scale), (wide, fine)): ((u8, u8), (u8, u8))| {
                fine >= scale && wide - fine >= digits - scale
            };
            (from, to) == ("float", "double") || decimal(from).zip(decimal(to)).is_some_and(more)
        }
    }
}

/// Digits, and how many of them are behind the point.
fn decimal(name: &str) -> Option<(u8, u8)> {
    let (digits, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (digits, scale) = (digits.trim().parse().ok()?, scale.trim().parse().ok()?);
    (scale <= digits).then_some((digits, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_widen_where_nothing_is_lost() {
        for (from, to, wider) in [
            ("byte", "long", true),
            ("short", "byte", false),
            ("integer", "double", true),
            ("long", "double", false),
            ("integer", "decimal(12,2)", true),
            ("integer", "decimal(11,2)", false),
            ("long", "decimal(20,0)", true),
            ("long", "decimal(10,0)", false),
            ("float", "double", true),
            ("double", "float", false),
            ("decimal(10,2)", "decimal(12,4)", true),
            ("decimal(10,2)", "decimal(11,4)", false),
            ("decimal(10,2)", "decimal(10,1)", false),
            ("string", "long", false),
            ("integer", "string", false),
            ("date", "timestamp", false),
        ] {
            assert_eq!(is_wider(from, to), wider, "{from} to {to}");
        }
    }

    #[test]
    fn each_change_is_told() {
        let mut field = json!({ "name": "n", "type": "short", "nullable": true, "metadata": {} });
        widen(&mut field, &json!("short")).unwrap();
        assert_eq!(field["metadata"], json!({}));
        widen(&mut field, &json!("integer")).unwrap();
        widen(&mut field, &json!("long")).unwrap();
        let told = json!([
            { "fromType": "short", "toType": "integer" },
            { "fromType": "integer", "toType": "long" }
        ]);
        assert_eq!((&field["type"], &field["metadata"][CHANGES]), (&json!("long"), &told));
        assert_eq!(widen(&mut field, &json!("short")).unwrap_err().code, Code::Unsupported);
    }
}
