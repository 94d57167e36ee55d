//! Arrow's types in ClickHouse's words: what a created column is, and what an existing one can take unharmed.
//!
//! ClickHouse converts on its own, and silently: 2^40 into an `Int32` is 0, an instant into a coarser column
//! loses its fraction. So only what keeps every value is accepted. Where that hangs on the values (an instant
//! without a fraction fits a `DateTime`), the types pass here, and the values are looked at while staging.

use arrow::datatypes::{DataType, Field, TimeUnit};

/// The type of a new column for `field`, or none where ClickHouse has no equal.
pub(super) fn column_type(field: &Field) -> Option<String> {
    let base = value_type(field.data_type())?;
    // Arrays, maps and tuples cannot be Nullable.
    Some(if field.is_nullable() && !composite(field.data_type()) {
        format!("Nullable({base})")
    } else {
        base
    })
}

/// Whether ClickHouse keeps no null of its own for columns of this type.
pub(super) fn composite(data_type: &DataType) -> bool {
    use DataType::{FixedSizeList, LargeList, LargeListView, List, ListView, Map, Struct};
    matches!(
        data_type,
        List(_) | LargeList(_) | FixedSizeList(..) | ListView(_) | LargeListView(_) | Struct(_) | Map(..)
    )
}

/// Decimal digits of a second's fraction.
pub(super) fn digits(unit: TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn value_type(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "Bool".to_owned(),
        DataType::Float32 => "Float32".to_owned(),
        DataType::Float64 => "Float64".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "String".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "String".to_owned(),
        DataType::FixedSizeBinary(length) => format!("FixedString({length})"),
        DataType::Date32 => "Date32".to_owned(),
        DataType::Timestamp(unit, _) => format!("DateTime64({}, 'UTC')", digits(*unit)),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("Array({})", column_type(item)?)
        }
        DataType::Struct(fields) => {
            let fields: Option<Vec<String>> = fields
                .iter()
                .map(|field| {
                    Some(format!("{} {}", super::session::quoted(field.name()), column_type(field)?))
                })
                .collect();
            format!("Tuple({})", fields?.join(", "))
        }
        DataType::Map(entries, _) => {
            let (key, value) = map_types(entries)?;
            format!("Map({}, {})", value_type(key.data_type())?, column_type(value)?)
        }
        DataType::Dictionary(_, value) => value_type(value)?,
        other => match (integer(other), decimal(other)) {
            (Some((true, bits)), _) => format!("Int{bits}"),
            (Some((false, bits)), _) => format!("UInt{bits}"),
            (_, Some((precision, scale))) => format!("Decimal({precision}, {scale})"),
            _ => return None,
        },
    })
}

/// Whether a column of ClickHouse's type `column` keeps every value of `data_type`, as far as types tell.
pub(super) fn accepts(column: &str, data_type: &DataType) -> bool {
    let (name, arguments) = split(column);
    if let ("Nullable" | "LowCardinality", [inner]) = (name, arguments.as_slice()) {
        return accepts(inner, data_type);
    }
    match data_type {
        DataType::Boolean => name == "Bool",
        DataType::Float32 => matches!(name, "Float32" | "Float64"),
        DataType::Float64 => name == "Float64",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => matches!(name, "String" | "UUID"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => name == "String",
        DataType::FixedSizeBinary(length) => {
            name == "String" || (name == "FixedString" && arguments == [length.to_string().as_str()])
        }
        // Out of range of `Date` is an error of ClickHouse's own, not a silent change.
        DataType::Date32 => matches!(name, "Date32" | "Date"),
        DataType::Timestamp(..) => matches!(name, "DateTime" | "DateTime64"),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            name == "Array" && arguments.len() == 1 && accepts(arguments[0], item.data_type())
        }
        DataType::Struct(fields) => {
            name == "Tuple"
                && arguments.len() == fields.len()
                && fields.iter().zip(&arguments).all(|(field, argument)| {
                    argument.split_once(' ').is_some_and(|(named, inner)| {
                        named.trim_matches('`') == field.name() && accepts(inner, field.data_type())
                    })
                })
        }
        DataType::Map(entries, _) => match (map_types(entries), arguments.as_slice()) {
            (Some((key, value)), [key_type, value_type]) => {
                name == "Map" && accepts(key_type, key.data_type()) && accepts(value_type, value.data_type())
            }
            _ => false,
        },
        DataType::Dictionary(_, value) => accepts(column, value),
        other => match (integer(other), decimal(other)) {
            (Some(given), _) => integer_column(name).is_some_and(|held| holds(held, given)),
            (_, Some((precision, scale))) => decimal_column(name, &arguments).is_some_and(|(p, s)| {
                s >= i32::from(scale) && p - s >= i32::from(precision) - i32::from(scale)
            }),
            _ => false,
        },
    }
}

/// Whether NULL can be stored.
pub(super) fn takes_null(column: &str) -> bool {
    match split(column) {
        ("Nullable", _) => true,
        ("LowCardinality", arguments) => arguments.iter().any(|inner| takes_null(inner)),
        _ => false,
    }
}

/// What a column of time keeps: the digits of a fraction, and whether only 1970 to 2106 fits.
pub(super) fn time_column(column: &str) -> Option<(u32, bool)> {
    let (name, arguments) = split(column);
    match name {
        "Nullable" | "LowCardinality" => time_column(arguments.first()?),
        "DateTime" => Some((0, true)),
        "DateTime64" => Some((arguments.first().and_then(|digits| digits.parse().ok()).unwrap_or(3), false)),
        _ => None,
    }
}

fn map_types(entries: &Field) -> Option<(&Field, &Field)> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => Some((&fields[0], &fields[1])),
        _ => None,
    }
}

/// Signed, and the bits.
fn integer(data_type: &DataType) -> Option<(bool, u32)> {
    Some(match data_type {
        DataType::Int8 => (true, 8),
        DataType::Int16 => (true, 16),
        DataType::Int32 => (true, 32),
        DataType::Int64 => (true, 64),
        DataType::UInt8 => (false, 8),
        DataType::UInt16 => (false, 16),
        DataType::UInt32 => (false, 32),
        DataType::UInt64 => (false, 64),
        _ => return None,
    })
}

fn integer_column(name: &str) -> Option<(bool, u32)> {
    match name.strip_prefix("UInt") {
        Some(bits) => Some((false, bits.parse().ok()?)),
        None => Some((true, name.strip_prefix("Int")?.parse().ok()?)),
    }
}

fn holds((column_signed, column_bits): (bool, u32), (signed, bits): (bool, u32)) -> bool {
    match (column_signed, signed) {
        (true, false) => column_bits > bits,
        (false, true) => false,
        _ => column_bits >= bits,
    }
}

fn decimal(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            Some((*precision, *scale))
        }
        _ => None,
    }
}

fn decimal_column(name: &str, arguments: &[&str]) -> Option<(i32, i32)> {
    match (name, arguments) {
        ("Decimal", [precision, scale]) => Some((precision.parse().ok()?, scale.parse().ok()?)),
        _ => None,
    }
}

/// `Map(String, Array(Int8))` is `Map` of `String` and `Array(Int8)`.
fn split(text: &str) -> (&str, Vec<&str>) {
    let text = text.trim();
    let Some((name, rest)) = text.split_once('(') else { return (text, Vec::new()) };
    let inner = rest.strip_suffix(')').unwrap_or(rest);
    let (mut arguments, mut depth, mut start, mut quote) = (Vec::new(), 0_u32, 0, None);
    for (at, c) in inner.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '`') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                arguments.push(inner[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    arguments.push(inner[start..].trim());
    (name, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Fields;
    use std::sync::Arc;

    #[test]
    fn created_columns_take_what_they_were_created_for() {
        let nested = Fields::from(vec![
            Field::new("x y", DataType::Int32, true),
            Field::new("z", DataType::Decimal128(20, 3), false),
        ]);
        let types = [
            (DataType::Int16, "Nullable(Int16)"),
            (DataType::Utf8View, "Nullable(String)"),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), "Nullable(DateTime64(9, 'UTC'))"),
            (DataType::Decimal128(38, 10), "Nullable(Decimal(38, 10))"),
            (DataType::new_list(DataType::Utf8, true), "Array(Nullable(String))"),
            (DataType::Struct(nested), "Tuple(`x y` Nullable(Int32), `z` Decimal(20, 3))"),
        ];
        for (data_type, expected) in types {
            let field = Field::new("c", data_type.clone(), true);
            assert_eq!(column_type(&field).as_deref(), Some(expected));
            if !matches!(data_type, DataType::Struct(_)) {
                assert!(accepts(expected, &data_type), "{expected}");
            }
        }
    }

    #[test]
    fn a_map_keeps_its_key_plain() {
        let entries = DataType::Struct(Fields::from(vec![
            Field::new("keys", DataType::Utf8, false),
            Field::new("values", DataType::Int64, true),
        ]));
        let map = DataType::Map(Arc::new(Field::new("entries", entries, false)), false);
        let column = column_type(&Field::new("m", map.clone(), true)).unwrap();
        assert_eq!(column, "Map(String, Nullable(Int64))");
        assert!(accepts(&column, &map));
        assert!(!accepts("Map(String, Int32)", &map));
    }

    #[test]
    fn nothing_is_narrowed() {
        assert!(accepts("LowCardinality(Nullable(String))", &DataType::Utf8));
        assert!(accepts("Int64", &DataType::UInt32));
        assert!(!accepts("Int32", &DataType::Int64));
        assert!(!accepts("UInt64", &DataType::Int8));
        assert!(!accepts("Int64", &DataType::UInt64));
        assert!(!accepts("Float32", &DataType::Float64));
        assert!(accepts("Decimal(20, 4)", &DataType::Decimal128(18, 2)));
        assert!(!accepts("Decimal(18, 4)", &DataType::Decimal128(18, 2)));
        assert!(!accepts("String", &DataType::Int64));
        assert!(accepts(
            "Tuple(a Int32, b String)",
            &DataType::Struct(Fields::from(vec![
                Field::new("a", DataType::Int32, true),
                Field::new("b", DataType::Utf8, true),
            ]))
        ));
    }

    #[test]
    fn types_without_an_equal_are_named_as_such() {
        for data_type in [DataType::Null, DataType::Float16, DataType::Duration(TimeUnit::Second)] {
            assert_eq!(column_type(&Field::new("c", data_type, true)), None);
        }
    }

    #[test]
    fn what_a_time_column_keeps() {
        assert_eq!(time_column("Nullable(DateTime64(6, 'Europe/Berlin'))"), Some((6, false)));
        assert_eq!(time_column("DateTime('UTC')"), Some((0, true)));
        assert_eq!(time_column("String"), None);
        assert!(takes_null("LowCardinality(Nullable(String))"));
        assert!(!takes_null("Array(Nullable(String))"));
    }
}
