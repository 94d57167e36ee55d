//! Arrow columns that grow by one JSON value at a time and can take the last ones back.
//!
//! Taking back ([`Column::truncate`]) serves both a record refused half-way and a key that comes twice.

use super::cursor::{Cursor, Kind, Text, unescape};
use super::fault::{Fault, Faulty};
use super::number;
use super::object::Object;
use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float64Array,
    Int64Array, ListArray, NullBufferBuilder, PrimitiveArray, StringArray, StringViewArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowTimestampType, DataType, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

/// The types that a JSON value can become, for the message about one that it cannot.
const ALLOWED: &str =
    "BOOLEAN, the integers, FLOAT, DOUBLE, DECIMAL, VARCHAR, DATE, TIMESTAMP, STRUCT and arrays of them";

#[derive(Debug)]
pub(super) struct Column {
    data_type: DataType,
    nulls: NullBufferBuilder,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Bool(BooleanBufferBuilder),
    /// Every integer type but the largest, kept within its limits and narrowed at the end.
    Int {
        values: Vec<i64>,
        least: i64,
        most: i64,
    },
    UInt64(Vec<u64>),
    /// Float64, and Float32 narrowed at the end.
    Float {
        values: Vec<f64>,
        most: f64,
    },
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Timestamp {
        values: Vec<i64>,
        unit: TimeUnit,
    },
    /// Days since the epoch.
    Date(Vec<i32>),
    Text {
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    Object(Box<Object>),
    List {
        ends: Vec<i32>,
        item: FieldRef,
        items: Box<Column>,
    },
}

impl Column {
    /// `Code::Unsupported` for a type that no JSON value can become.
    pub(super) fn new(name: &str, data_type: &DataType) -> Result<Self> {
        let int = |least: i64, most: i64| Values::Int { values: Vec::new(), least, most };
        let values = match data_type {
            DataType::Boolean => Values::Bool(BooleanBufferBuilder::new(0)),
            DataType::Int8 => int(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => int(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => int(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => int(i64::MIN, i64::MAX),
            DataType::UInt8 => int(0, u8::MAX.into()),
            DataType::UInt16 => int(0, u16::MAX.into()),
            DataType::UInt32 => int(0, u32::MAX.into()),
            DataType::UInt64 => Values::UInt64(Vec::new()),
            DataType::Float32 => Values::Float { values: Vec::new(), most: f64::from(f32::MAX) },
            DataType::Float64 => Values::Float { values: Vec::new(), most: f64::MAX },
            DataType::Decimal128(precision, scale) => {
                Values::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Timestamp(unit, _) => Values::Timestamp { values: Vec::new(), unit: *unit },
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Values::Text { ends: vec![0], bytes: Vec::new() }
            }
            DataType::Struct(fields) => Values::Object(Box::new(Object::new(fields)?)),
            DataType::List(item) => Values::List {
                ends: vec![0],
                item: Arc::clone(item),
                items: Box::new(Column::new(name, item.data_type())?),
            },
            other => {
                let message = format!("column `{name}` has the type {other}, which JSON cannot give");
                return Err(Error::new(Code::Unsupported, message).hint(format!("allowed are {ALLOWED}")));
            }
        };
        Ok(Self { data_type: data_type.clone(), nulls: NullBufferBuilder::new(0), values })
    }

    pub(super) fn last_is_null(&self) -> bool {
        self.nulls.len().checked_sub(1).is_some_and(|last| !self.nulls.is_valid(last))
    }

    /// Adds the value that begins at the cursor. After a fault the column may be half-way: truncate it.
    #[inline]
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>, depth: usize) -> Faulty<()> {
        let kind = cursor.kind()?;
        match (&mut self.values, kind) {
            (_, Kind::Null) => {
                cursor.word("null")?;
                self.append_null();
                return Ok(());
            }
            (Values::Text { ends, bytes }, Kind::String) => {
                append(cursor.string()?, bytes)?;
                ends.push(length(bytes.len())?);
            }
            (Values::Float { values, most }, Kind::Number) => {
                let value = number::float(&cursor.number()?);
                if value.abs() > *most {
                    return Err(out_of_range(&self.data_type));
                }
                values.push(value);
            }
            (Values::Int { values, least, most }, Kind::Number) => {
                let value = integer(cursor, &self.data_type)?;
                if value < i128::from(*least) || value > i128::from(*most) {
                    return Err(out_of_range(&self.data_type));
                }
                values.push(value as i64);
            }
            (Values::UInt64(values), Kind::Number) => {
                let value = integer(cursor, &self.data_type)?;
                values.push(u64::try_from(value).map_err(|_| out_of_range(&self.data_type))?);
            }
            (Values::Bool(values), Kind::True) => {
                cursor.word("true")?;
                values.append(true);
            }
            (Values::Bool(values), Kind::False) => {
                cursor.word("false")?;
                values.append(false);
            }
            (Values::Timestamp { values, unit }, Kind::String) => {
                let unit = *unit;
                let parse = |text: &str| number::timestamp(text, unit);
                values.push(parsed(cursor.string()?, &self.data_type, "an RFC 3339 time", parse)?);
            }
            (Values::Timestamp { values, unit }, Kind::Number) => {
                let millis = integer(cursor, &self.data_type)?;
                let value = number::from_millis(millis, *unit);
                values.push(value.ok_or_else(|| out_of_range(&self.data_type))?);
            }
            (Values::Date(values), Kind::String) => {
                values.push(parsed(cursor.string()?, &self.data_type, "a date", number::date)?);
            }
            // Money is often sent as a string, so that no reader makes a float of it.
            (Values::Decimal { values, precision, scale }, Kind::String) => {
                let parse = |text: &str| number::decimal(text, *precision, *scale);
                values.push(parsed(cursor.string()?, &self.data_type, "a decimal number", parse)?);
            }
            (Values::Decimal { values, precision, scale }, Kind::Number) => {
                let text = Text { raw: cursor.number()?.text, escaped: false };
                let parse = |text: &str| number::decimal(text, *precision, *scale);
                values.push(parsed(text, &self.data_type, "a decimal number", parse)?);
            }
            (Values::Object(object), Kind::Object) => object.read(cursor, self.nulls.len(), depth)?,
            (Values::List { ends, item, items }, Kind::Array) => {
                read_items(cursor, item, items, depth)?;
                ends.push(length(items.nulls.len())?);
            }
            (_, kind) => return Err(Fault::expected(&self.data_type, &kind.name())),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    pub(super) fn append_null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.append(false),
            Values::Int { values, .. } | Values::Timestamp { values, .. } => values.push(0),
            Values::UInt64(values) => values.push(0),
            Values::Float { values, .. } => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Date(values) => values.push(0),
            Values::Text { ends, .. } | Values::List { ends, .. } => {
                ends.extend(ends.last().copied());
            }
            Values::Object(object) => object.append_null(),
        }
        self.nulls.append_null();
    }

    /// Takes back everything after the first `rows` values.
    pub(super) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Bool(values) => values.truncate(rows.min(values.len())),
            Values::Int { values, .. } | Values::Timestamp { values, .. } => values.truncate(rows),
            Values::UInt64(values) => values.truncate(rows),
            Values::Float { values, .. } => values.truncate(rows),
            Values::Decimal { values, .. } => values.truncate(rows),
            Values::Date(values) => values.truncate(rows),
            Values::Text { ends, bytes } => {
                ends.truncate(rows + 1);
                bytes.truncate(end(ends));
            }
            Values::List { ends, items, .. } => {
                ends.truncate(rows + 1);
                items.truncate(end(ends));
            }
            Values::Object(object) => object.truncate(rows),
        }
        self.nulls.truncate(rows.min(self.nulls.len()));
    }

    /// The column as an array; it begins anew, with room for as many rows.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = self.nulls.len();
        let nulls = self.nulls.finish();
        self.nulls = NullBufferBuilder::new(rows);
        let array: ArrayRef = match &mut self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int { values, .. } => Arc::new(Int64Array::new(take(values), nulls)),
            Values::UInt64(values) => Arc::new(UInt64Array::new(take(values), nulls)),
            Values::Float { values, .. } => Arc::new(Float64Array::new(take(values), nulls)),
            Values::Date(values) => Arc::new(Date32Array::new(take(values), nulls)),
            Values::Decimal { values, precision, scale } => Arc::new(
                Decimal128Array::new(take(values), nulls).with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Timestamp { values, unit } => {
                let values = take(values);
                match unit {
                    TimeUnit::Second => times::<TimestampSecondType>(values, nulls, &self.data_type),
                    TimeUnit::Millisecond => {
                        times::<TimestampMillisecondType>(values, nulls, &self.data_type)
                    }
                    TimeUnit::Microsecond => {
                        times::<TimestampMicrosecondType>(values, nulls, &self.data_type)
                    }
                    TimeUnit::Nanosecond => times::<TimestampNanosecondType>(values, nulls, &self.data_type),
                }
            }
            Values::Text { ends, bytes } => {
                let text = StringArray::try_new(take_ends(ends), take(bytes).into_inner(), nulls)?;
                if self.data_type == DataType::Utf8View {
                    return Ok(Arc::new(StringViewArray::from(&text)));
                }
                Arc::new(text)
            }
            Values::List { ends, item, items } => {
                Arc::new(ListArray::try_new(Arc::clone(item), take_ends(ends), items.finish()?, nulls)?)
            }
            Values::Object(object) => Arc::new(object.finish(rows, nulls)?),
        };
        // Narrows integers and floats, and widens offsets.
        if *array.data_type() == self.data_type { Ok(array) } else { cast(&array, &self.data_type) }
    }
}

/// With the zone of the column, which says how to show the times and changes none of them.
fn times<T: ArrowTimestampType>(
    values: ScalarBuffer<i64>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(data_type.clone()))
}

fn read_items(cursor: &mut Cursor<'_>, item: &FieldRef, items: &mut Column, depth: usize) -> Faulty<()> {
    let depth = super::cursor::deeper(depth)?;
    cursor.expect(b'[', "`[`")?;
    if cursor.take(b']') {
        return Ok(());
    }
    loop {
        items.read(cursor, depth)?;
        if !item.is_nullable() && items.last_is_null() {
            return Err(Fault::missing());
        }
        if !cursor.take(b',') {
            return cursor.expect(b']', "`,` or `]`");
        }
    }
}

#[inline]
fn integer(cursor: &mut Cursor<'_>, data_type: &DataType) -> Faulty<i128> {
    let number = cursor.number()?;
    number::integer(&number).ok_or_else(|| {
        Fault::expected(data_type, &format!("the number {}", String::from_utf8_lossy(number.text)))
    })
}

/// What `parse` makes of a string.
fn parsed<T>(
    text: Text<'_>,
    data_type: &DataType,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Faulty<T> {
    let mut room = Vec::new();
    let bytes = if text.escaped {
        unescape(text.raw, &mut room)?;
        room.as_slice()
    } else {
        text.raw
    };
    std::str::from_utf8(bytes).ok().and_then(parse).ok_or_else(|| {
        Fault::expected(
            &format!("{data_type} ({what})"),
            &format!("`{}`", String::from_utf8_lossy(bytes).chars().take(40).collect::<String>()),
        )
    })
}

#[inline]
fn append(text: Text<'_>, bytes: &mut Vec<u8>) -> Faulty<()> {
    if text.escaped {
        return unescape(text.raw, bytes);
    }
    bytes.extend_from_slice(text.raw);
    Ok(())
}

fn out_of_range(data_type: &DataType) -> Box<Fault> {
    Fault::expected(data_type, &"a number out of its range")
}

/// An Arrow offset. A batch of raw records is itself addressed by 32 bits, and text only shrinks.
fn length(length: usize) -> Faulty<i32> {
    i32::try_from(length).map_err(|_| Fault::expected(&"at most 2 GiB in a batch", &"more"))
}

fn end(ends: &[i32]) -> usize {
    ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or_default()
}

fn take<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next).into()
}

fn take_ends(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut next = Vec::with_capacity(ends.len());
    next.push(0);
    OffsetBuffer::new(std::mem::replace(ends, next).into())
}
