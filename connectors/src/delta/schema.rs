//! Between Arrow's many types and Delta's few: what a column becomes, whether it fits, and the cast.

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

/// The type in which Delta keeps `column`. Timestamps are microseconds in UTC: one without a zone counts as
/// UTC, so that every Delta reader can read the table.
pub(super) fn lake_type(column: &str, data_type: &DataType) -> Result<DataType> {
    use DataType as T;
    let nested = |field: &Field| -> Result<Arc<Field>> {
        let data_type = lake_type(column, field.data_type())?;
        Ok(Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
    };
    Ok(match data_type {
        T::Boolean | T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 | T::Date32 => {
            data_type.clone()
        }
        T::Decimal128(precision, scale) if *scale >= 0 => T::Decimal128(*precision, *scale),
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) if *scale >= 0 => {
            T::Decimal128(*precision, *scale)
        }
        T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 | T::UInt64 => T::Int64,
        T::Float16 => T::Float32,
        T::Utf8 | T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Date64 => T::Date32,
        T::Timestamp(_, _) => T::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        T::Dictionary(_, values) => lake_type(column, values)?,
        T::List(item)
        | T::LargeList(item)
        | T::ListView(item)
        | T::LargeListView(item)
        | T::FixedSizeList(item, _) => T::List(nested(item)?),
        T::Struct(fields) => T::Struct(fields.iter().map(|field| nested(field)).collect::<Result<Fields>>()?),
        T::Map(entries, sorted) => match entries.data_type() {
            T::Struct(pair) => {
                let pair = pair.iter().map(|field| nested(field)).collect::<Result<Fields>>()?;
                T::Map(Arc::new(Field::new(entries.name(), T::Struct(pair), false)), *sorted)
            }
            other => return Err(no_type(column, other)),
        },
        other => return Err(no_type(column, other)),
    })
}

fn no_type(column: &str, data_type: &DataType) -> Error {
    Error::new(Code::Unsupported, format!("Delta has no type for column `{column}` of type {data_type}"))
        .hint("CAST it to a type that Delta has, such as VARCHAR, BIGINT, DECIMAL or TIMESTAMP")
}

/// The schema that a table of these columns is created with. Delta reserves some characters in names unless
/// column mapping is on.
pub(super) fn lake_schema(schema: &Schema) -> Result<Schema> {
    let fields = schema.fields().iter().map(|field| {
        if field.name().is_empty()
            || field.name().contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='])
        {
            let message = format!("`{}` cannot be the name of a column of a Delta table", field.name());
            return Err(Error::new(Code::InvalidStatement, message)
                .hint("name it with AS, without any of ` ,;{}()=` in it"));
        }
        let data_type = lake_type(field.name(), field.data_type())?;
        Ok(Field::new(field.name(), data_type, field.is_nullable()))
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>>>()?))
}

/// Compares what comes with what the table has, and says what differs. A missing column that may be NULL is
/// NULL; a type that loses nothing is cast.
pub(super) fn compare(input: &Schema, table: &Schema) -> Result<()> {
    let mut names: Vec<&str> = Vec::new();
    for field in input.fields() {
        let Ok(column) = table.field_with_name(field.name()) else {
            let message = format!("the table has no column `{}`", field.name());
            let columns = table.fields().iter().map(|field| field.name().as_str());
            return Err(Error::new(Code::UnknownColumn, message).suggest(field.name(), columns));
        };
        if names.contains(&field.name().as_str()) {
            return Err(Error::new(Code::InvalidStatement, format!("column `{}` comes twice", field.name()))
                .hint("name each column of the query differently, with AS"));
        }
        names.push(field.name());
        if !fits(&lake_type(field.name(), field.data_type())?, column.data_type()) {
            let message = format!(
                "column `{}` is {} in the table and {} in the query",
                field.name(),
                column.data_type(),
                field.data_type()
            );
            return Err(
                Error::new(Code::TypeMismatch, message).hint(format!("CAST it to {}", column.data_type()))
            );
        }
    }
    match table
        .fields()
        .iter()
        .find(|column| !column.is_nullable() && !names.contains(&column.name().as_str()))
    {
        Some(column) => Err(Error::new(
            Code::InvalidStatement,
            format!("column `{}` is NOT NULL in the table and missing in the query", column.name()),
        )
        .hint("give it a value")),
        None => Ok(()),
    }
}

/// Whether every value of `from` is a value of `to`. Names of list items and the like do not matter.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Int8, T::Int16 | T::Int32 | T::Int64)
        | (T::Int16, T::Int32 | T::Int64)
        | (T::Int32, T::Int64)
        | (T::Float32, T::Float64)
        | (T::Timestamp(_, _), T::Timestamp(_, _)) => true,
        (T::Decimal128(p1, s1), T::Decimal128(p2, s2)) => {
            s1 <= s2 && i16::from(*p1) - i16::from(*s1) <= i16::from(*p2) - i16::from(*s2)
        }
        (T::List(from), T::List(to)) => fits(from.data_type(), to.data_type()),
        (T::Map(from, _), T::Map(to, _)) => fits(from.data_type(), to.data_type()),
        (T::Struct(from), T::Struct(to)) => {
            from.len() == to.len()
                && from.iter().zip(to).all(|(from, to)| fits(from.data_type(), to.data_type()))
        }
        (from, to) => from == to,
    }
}

/// The batch in the table's own columns. Values that do not fit and NULL in a NOT NULL column are errors.
pub(super) fn conform(batch: &RecordBatch, table: &SchemaRef) -> Result<RecordBatch> {
    let columns = table.fields().iter().map(|field| -> Result<ArrayRef> {
        let column = match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => column.clone(),
            Some(column) => {
                let strict = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(column, field.data_type(), &strict).map_err(|error| {
                    Error::new(Code::BadData, format!("column `{}`: {error}", field.name()))
                })?
            }
            None => new_null_array(field.data_type(), batch.num_rows()),
        };
        if !field.is_nullable() && column.logical_null_count() > 0 {
            let message = format!("NULL in column `{}`, which is NOT NULL", field.name());
            return Err(Error::new(Code::BadData, message).hint("filter these rows out, or use coalesce()"));
        }
        Ok(column)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(table.clone(), columns, &rows)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray, TimestampNanosecondArray, UInt64Array};

    fn schema(fields: &[(&str, DataType, bool)]) -> Schema {
        let fields: Vec<Field> = fields
            .iter()
            .map(|(name, data_type, null)| Field::new(*name, data_type.clone(), *null))
            .collect();
        Schema::new(fields)
    }

    #[test]
    fn says_which_column_differs() {
        let table = schema(&[("id", DataType::Int64, false), ("name", DataType::Utf8, true)]);
        let input = schema(&[("id", DataType::Int32, true), ("nam", DataType::Utf8, true)]);
        let error = compare(&input, &table).unwrap_err();
        assert_eq!(error.code, Code::UnknownColumn);
        assert_eq!(error.hint.as_deref(), Some("did you mean `name`?"));
        let input = schema(&[("id", DataType::Utf8View, true)]);
        assert_eq!(compare(&input, &table).unwrap_err().code, Code::TypeMismatch);
        let input = schema(&[("name", DataType::Utf8View, true)]);
        assert_eq!(compare(&input, &table).unwrap_err().code, Code::InvalidStatement);
        let input = schema(&[("id", DataType::UInt8, true)]);
        compare(&input, &table).unwrap();
    }

    #[test]
    fn casts_views_and_times_and_refuses_what_does_not_fit() {
        let table = Arc::new(
            lake_schema(&schema(&[
                ("n", DataType::UInt64, false),
                ("s", DataType::Utf8View, true),
                ("t", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
                ("new", DataType::Float64, true),
            ]))
            .unwrap(),
        );
        let batch = |n: UInt64Array| {
            RecordBatch::try_from_iter_with_nullable([
                ("s", Arc::new(StringViewArray::from(vec!["a long enough text"])) as ArrayRef, true),
                ("t", Arc::new(TimestampNanosecondArray::from(vec![1_999])) as ArrayRef, true),
                ("n", Arc::new(n) as ArrayRef, true),
            ])
            .unwrap()
        };
        let written = conform(&batch(UInt64Array::from(vec![7])), &table).unwrap();
        assert_eq!(written.schema(), table);
        assert_eq!(written.column(0).as_ref(), &Int64Array::from(vec![7]) as &dyn Array);
        assert_eq!(written.column(3).null_count(), 1);
        let too_large = conform(&batch(UInt64Array::from(vec![u64::MAX])), &table).unwrap_err();
        assert_eq!(too_large.code, Code::BadData);
        let null = conform(&batch(UInt64Array::from(vec![None])), &table).unwrap_err();
        assert!(null.message.contains("`n`"), "{null}");
    }

    #[test]
    fn names_the_column_that_delta_has_no_type_for() {
        let input = schema(&[("d", DataType::Duration(TimeUnit::Second), true)]);
        let error = lake_schema(&input).unwrap_err();
        assert_eq!(error.code, Code::Unsupported);
        assert!(error.message.contains("`d`"));
        assert_eq!(
            lake_schema(&schema(&[("count(*)", DataType::Int64, true)])).unwrap_err().code,
            Code::InvalidStatement
        );
    }
}
