//! Values as the test files write them, and how answers are compared: the rules of DataFusion's own runner.

use crate::script::Sort;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float16Type,
    Float32Type, Float64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

pub(crate) fn rows(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            expand(batch.columns().iter().map(|column| cell(column, row)).collect(), &mut rows);
        }
    }
    rows
}

/// A last cell of several lines becomes a row a line.
fn expand(mut row: Vec<String>, rows: &mut Vec<Vec<String>>) {
    let lines: Vec<String> =
        row.last().map(|cell| cell.split('\n').map(str::to_owned).collect()).unwrap_or_default();
    if lines.len() < 2 {
        rows.push(row);
        return;
    }
    row.pop();
    rows.push(row);
    for (index, line) in lines.iter().enumerate() {
        let content = line.trim_start();
        let indent = "-".repeat(line.len() - content.len());
        rows.push(vec![format!("{:02}){indent}{content}", index + 1)]);
    }
}

fn cell(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    match column.data_type() {
        DataType::Null => "NULL".to_owned(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Float16 => {
            let value = column.as_primitive::<Float16Type>().value(row);
            float(f64::from(value), value.to_string())
        }
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            float(f64::from(value), value.to_string())
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            float(value, value.to_string())
        }
        DataType::Decimal32(_, scale) => {
            decimal::<Decimal32Type>(column.as_primitive::<Decimal32Type>().value(row), *scale)
        }
        DataType::Decimal64(_, scale) => {
            decimal::<Decimal64Type>(column.as_primitive::<Decimal64Type>().value(row), *scale)
        }
        DataType::Decimal128(_, scale) => {
            decimal::<Decimal128Type>(column.as_primitive::<Decimal128Type>().value(row), *scale)
        }
        DataType::Decimal256(_, scale) => {
            decimal::<Decimal256Type>(column.as_primitive::<Decimal256Type>().value(row), *scale)
        }
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            cell(dictionary.values(), dictionary.normalized_keys()[row])
        }
        _ => {
            let options = FormatOptions::default().with_null("NULL");
            match ArrayFormatter::try_new(column.as_ref(), &options) {
                Ok(formatter) => formatter.value(row).to_string(),
                Err(error) => format!("({error})"),
            }
        }
    }
}

fn text(value: &str) -> String {
    match value {
        "" => "(empty)".to_owned(),
        value => value.trim_end_matches('\n').replace('\0', "\\0"),
    }
}

fn decimal<T: DecimalType>(value: T::Native, scale: i8) -> String {
    plain(T::format_decimal(value, u8::MAX, scale))
}

/// Twelve decimals at most.
fn float(value: f64, shortest: String) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    match shortest.split_once('.') {
        Some((_, decimals)) if decimals.len() > 12 => plain(format!("{value:.12}")),
        _ => plain(shortest),
    }
}

fn plain(number: String) -> String {
    let short = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

/// The answer as lines, in the order that the test asks for.
pub(crate) fn lines(mut rows: Vec<Vec<String>>, sort: Sort) -> Vec<String> {
    match sort {
        Sort::None => {}
        Sort::Rows => rows.sort_unstable(),
        Sort::Values => {
            let mut values: Vec<String> = rows.into_iter().flatten().collect();
            values.sort_unstable();
            return values;
        }
    }
    rows.iter().map(|row| row.join(" ").trim_end().to_owned()).collect()
}

pub(crate) fn agree(actual: &[String], expected: &[String]) -> bool {
    const IGNORE: &str = "<slt:ignore>";
    let expected: Vec<&str> = expected.iter().map(|line| line.trim_end()).collect();
    if !expected.iter().any(|line| line.contains(IGNORE)) {
        return actual.iter().eq(expected.iter());
    }
    let (expected, actual) = (expected.join("\n"), actual.join("\n"));
    let mut rest = actual.as_str();
    for (index, fragment) in expected.split(IGNORE).enumerate() {
        match rest.find(fragment) {
            Some(at) if index > 0 || at == 0 => rest = &rest[at + fragment.len()..],
            _ => return false,
        }
    }
    true
}
