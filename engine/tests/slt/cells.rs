//! Values as the test files write them, and how answers are compared: the rules of DataFusion's own runner.

use crate::script::Sort;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float16Type,
    Float32Type, Float64Type, Schema,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use md5::{Digest, Md5};
use std::sync::LazyLock;

/// Decimals of a number.
const DECIMALS: usize = 12;
/// Of a DOUBLE in a test of Spark's functions.
const SPARK_DECIMALS: usize = 15;

/// As DataFusion shows what has no form of its own in the files.
static FORMAT: LazyLock<datafusion::config::FormatOptions> =
    LazyLock::new(|| datafusion::config::FormatOptions { null: "NULL".to_owned(), ..Default::default() });

/// The folder of DataFusion's sources, if the tests stand in it where they stand there. Object stores leave its first
/// slash out.
static ROOT: LazyLock<Option<String>> = LazyLock::new(|| {
    let folder = std::env::current_dir().ok()?;
    let root = folder.to_str()?.strip_suffix("/datafusion/sqllogictest")?;
    Some(root.trim_start_matches('/').to_owned())
});

/// The text with a word of the files in the place of that folder.
pub(crate) fn without_root(text: &str) -> String {
    match &*ROOT {
        Some(root) => text.replace(root, "WORKSPACE_ROOT"),
        None => text.to_owned(),
    }
}

/// A letter a column.
pub(crate) fn types(schema: &Schema) -> String {
    schema.fields().iter().map(|field| letter(field.data_type())).collect()
}

fn letter(data_type: &DataType) -> char {
    match data_type {
        DataType::Boolean => 'B',
        data_type if data_type.is_integer() => 'I',
        data_type if data_type.is_floating() || data_type.is_decimal() => 'R',
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 'T',
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => 'D',
        DataType::Timestamp(..) => 'P',
        DataType::Dictionary(_, values) if values.is_string() => 'T',
        _ => '?',
    }
}

/// Whether columns are of the expected types; a letter that is none stands for all the others.
pub(crate) fn of_types(actual: &str, expected: &str) -> bool {
    let known = |letter| if "BDIPRT".contains(letter) { letter } else { '?' };
    actual.chars().eq(expected.chars().map(known))
}

pub(crate) fn rows(batches: &[RecordBatch], spark: bool) -> Vec<Vec<String>> {
    let decimals = if spark { SPARK_DECIMALS } else { DECIMALS };
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| without_root(&cell(column, row, decimals)));
            expand(cells.collect(), &mut rows);
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

/// `decimals` are those of a DOUBLE.
fn cell(column: &ArrayRef, row: usize, decimals: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    match column.data_type() {
        DataType::Null => "NULL".to_owned(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Float16 => {
            let value = column.as_primitive::<Float16Type>().value(row);
            float(f64::from(value), value.to_string(), DECIMALS)
        }
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            float(f64::from(value), value.to_string(), DECIMALS)
        }
        DataType::Float64 => {
            let value = column.as_primitive::<Float64Type>().value(row);
            float(value, value.to_string(), decimals)
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
            cell(dictionary.values(), dictionary.normalized_keys()[row], decimals)
        }
        _ => {
            let options = FormatOptions::try_from(&*FORMAT).unwrap();
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

/// With so many decimals at most.
fn float(value: f64, shortest: String, most: usize) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    match shortest.split_once('.') {
        Some((_, decimals)) if decimals.len() > most => plain(format!("{value:.most$}")),
        _ => plain(shortest),
    }
}

fn plain(number: String) -> String {
    let short = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => &number,
    };
    // A zero of negative scale has several digits.
    match short.trim_start_matches('-').trim_start_matches('0') {
        "" => "0".to_owned(),
        _ => short.to_owned(),
    }
}

/// The answer in the order that the test asks for.
pub(crate) fn sorted(mut rows: Vec<Vec<String>>, sort: Sort) -> Vec<Vec<String>> {
    if sort == Sort::Values {
        rows = rows.into_iter().flatten().map(|value| vec![value]).collect();
    }
    if sort != Sort::None {
        rows.sort_unstable();
    }
    rows
}

/// The answer as it stands in a file: as lines, or as a digest if the file has one.
pub(crate) fn lines(rows: &[Vec<String>], expected: &[String]) -> Vec<String> {
    match expected {
        [only] if only.contains(" values hashing to ") => vec![digest(rows)],
        _ => rows.iter().map(|row| row.join(" ").trim_end().to_owned()).collect(),
    }
}

fn digest(rows: &[Vec<String>]) -> String {
    let mut digest = Md5::new();
    for value in rows.iter().flatten() {
        digest.update(value);
        digest.update("\n");
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} values hashing to {digest}", rows.iter().map(Vec::len).sum::<usize>())
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

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, DurationSecondArray, Float64Array};
    use arrow::datatypes::Field;
    use std::sync::Arc;

    fn shown(column: ArrayRef, spark: bool) -> String {
        let schema = Arc::new(Schema::new(vec![Field::new("a", column.data_type().clone(), true)]));
        let batch = RecordBatch::try_new(schema, vec![column]).unwrap();
        lines(&rows(&[batch], spark), &[]).join(",")
    }

    #[test]
    fn values_as_the_files_write_them() {
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.5, -0.0, 2.0 / 3.0, f64::INFINITY]));
        assert_eq!(shown(numbers.clone(), false), "1.5,0,0.666666666667,Infinity");
        assert_eq!(shown(numbers, true), "1.5,0,0.666666666666667,Infinity");
        let hundreds = Decimal128Array::from(vec![0, -12]).with_precision_and_scale(5, -2).unwrap();
        assert_eq!(shown(Arc::new(hundreds), false), "0,-1200");
        let duration = DurationSecondArray::from(vec![Some(1800), None]);
        assert_eq!(shown(Arc::new(duration), false), "0 days 0 hours 30 mins 0 secs,NULL");
    }

    #[test]
    fn types_are_letters() {
        let field = |data_type| Field::new("a", data_type, true);
        let schema =
            Schema::new(vec![field(DataType::UInt8), field(DataType::Utf8View), field(DataType::Null)]);
        assert!(of_types(&types(&schema), "IT?"));
        assert!(of_types(&types(&schema), "ITV"));
        assert!(!of_types(&types(&schema), "IT"));
        assert!(!of_types(&types(&schema), "RT?"));
    }

    #[test]
    fn long_answers_have_a_digest() {
        let rows = vec![vec!["a".to_owned(), "b".to_owned()]];
        let expected = "2 values hashing to dd8c6a395b5dd36c56d23275028f526c".to_owned();
        assert!(agree(&lines(&rows, std::slice::from_ref(&expected)), &[expected]));
    }
}
