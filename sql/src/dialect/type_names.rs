//! Arrow types as the SQL types that make them.

use arrow::datatypes::{DataType, TimeUnit};

/// The SQL name of a type, such as `CREATE TABLE` takes it; Arrow's name where SQL has none.
pub fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA",
        DataType::Date32 => "DATE",
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, Some(_)) => "TIMESTAMP",
        DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, None) => {
            "TIMESTAMP WITHOUT TIME ZONE"
        }
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            return format!("DECIMAL({precision}, {scale})");
        }
        DataType::List(item) | DataType::LargeList(item) => {
            return format!("{}[]", sql_type(item.data_type()));
        }
        DataType::Struct(fields) => {
            let field = |field: &arrow::datatypes::FieldRef| {
                format!("{} {}", field.name(), sql_type(field.data_type()))
            };
            let fields: Vec<String> = fields.iter().map(field).collect();
            return format!("STRUCT<{}>", fields.join(", "));
        }
        DataType::Dictionary(_, value) => return sql_type(value),
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Cursor, column_schema};
    use arrow::datatypes::Schema;

    fn read(text: &str) -> Schema {
        column_schema(Cursor::new(text).unwrap().list(Cursor::column).unwrap()).unwrap()
    }

    /// What `SHOW CREATE TABLE` says can be read again.
    #[test]
    fn names_are_read_back_as_the_same_types() {
        let text = "(a BOOLEAN, b TINYINT, c SMALLINT, d INT, e BIGINT, f FLOAT, g DOUBLE, h VARCHAR, i BYTEA, \
                    j DATE, k TIMESTAMP, l TIMESTAMP WITHOUT TIME ZONE, m DECIMAL(10, 2), n INT[], \
                    o STRUCT<x DOUBLE, y VARCHAR[]>, p BIGINT UNSIGNED)";
        let schema = read(text);
        let column =
            |field: &arrow::datatypes::FieldRef| format!("{} {}", field.name(), sql_type(field.data_type()));
        let columns: Vec<String> = schema.fields().iter().map(column).collect();
        let shown = format!("({})", columns.join(", "));
        assert_eq!(shown, text);
        assert_eq!(read(&shown), schema);
    }
}
