//! Results on standard output. All formats but the table are written as the rows come.

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::csv;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use std::io::Write;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// Comma-separated, with a header line
    Csv,
    /// One JSON object a line
    Json,
    /// An Arrow IPC stream
    Arrow,
}

/// Writes one result.
pub(super) enum Writer<W: Write> {
    Table { out: W, schema: SchemaRef, kept: Vec<RecordBatch>, rows: usize, max_rows: usize },
    Csv(Box<csv::Writer<W>>),
    Json(json::Writer<W, json::writer::LineDelimited>),
    Arrow(Box<StreamWriter<W>>),
}

impl<W: Write> Writer<W> {
    pub(super) fn new(
        format: Format,
        out: W,
        schema: SchemaRef,
        max_rows: usize,
    ) -> Result<Self, ArrowError> {
        Ok(match format {
            Format::Table => Writer::Table { out, schema, kept: Vec::new(), rows: 0, max_rows },
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // An empty result has a header too.
                writer.write(&flat(&RecordBatch::new_empty(schema))?)?;
                Writer::Csv(Box::new(writer))
            }
            Format::Json => Writer::Json(
                json::WriterBuilder::new()
                    .with_explicit_nulls(true)
                    .build::<_, json::writer::LineDelimited>(out),
            ),
            Format::Arrow => Writer::Arrow(Box::new(StreamWriter::try_new(out, &schema)?)),
        })
    }

    /// Whether rows appear on the output before the end.
    pub(super) fn streams(&self) -> bool {
        !matches!(self, Writer::Table { .. })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        match self {
            Writer::Table { kept, rows, max_rows, .. } => {
                let room = if *max_rows == 0 { usize::MAX } else { max_rows.saturating_sub(*rows) };
                if room > 0 && batch.num_rows() > 0 {
                    kept.push(batch.slice(0, batch.num_rows().min(room)));
                }
                *rows += batch.num_rows();
                Ok(())
            }
            Writer::Csv(writer) => writer.write(&flat(batch)?),
            Writer::Json(writer) => writer.write(batch),
            Writer::Arrow(writer) => writer.write(batch),
        }
    }

    /// Ends the result. For a table, gives the number of rows that it does not show.
    pub(super) fn finish(self) -> Result<usize, ArrowError> {
        match self {
            Writer::Table { mut out, schema, kept, rows, .. } => {
                let shown: usize = kept.iter().map(RecordBatch::num_rows).sum();
                writeln!(out, "{}", table(&schema, &kept)?)?;
                out.flush()?;
                return Ok(rows - shown);
            }
            Writer::Csv(writer) => writer.into_inner().flush()?,
            Writer::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner().flush()?;
            }
            Writer::Arrow(mut writer) => {
                writer.finish()?;
                writer.into_inner()?.flush()?;
            }
        }
        Ok(0)
    }
}

/// The batch with JSON in the place of what CSV has no form for.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())));
            columns.push(Arc::new(as_json(field, column)?) as ArrayRef);
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

fn as_json(field: &FieldRef, column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(field, column, &options)?;
    let mut text = Vec::new();
    let rows = (0..column.len()).map(|row| {
        if column.is_null(row) {
            return None;
        }
        text.clear();
        encoder.encode(row, &mut text);
        Some(String::from_utf8_lossy(&text).into_owned())
    });
    Ok(rows.collect())
}

/// Numbers stand on the right, the rest on the left.
fn table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Table, ArrowError> {
    let options = FormatOptions::new().with_null("NULL").with_display_error(true);
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(schema.fields().iter().map(|field| field.name()));
    for (column, field) in table.column_iter_mut().zip(schema.fields()) {
        if field.data_type().is_numeric() {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for batch in batches {
        let columns: Result<Vec<_>, _> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect();
        let columns = columns?;
        for row in 0..batch.num_rows() {
            table.add_row(columns.iter().map(|column| Cell::new(column.value(row))));
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, ListArray};
    use arrow::datatypes::Int64Type;

    fn batch() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(100.0)]));
        let words: ArrayRef = Arc::new(StringArray::from(vec!["a", "b,c", "d"]));
        RecordBatch::try_from_iter([("number", numbers), ("word", words)]).unwrap()
    }

    fn written(format: Format, max_rows: usize) -> (String, usize) {
        let mut out = Vec::new();
        let mut writer = Writer::new(format, &mut out, batch().schema(), max_rows).unwrap();
        writer.write(&batch()).unwrap();
        let hidden = writer.finish().unwrap();
        (String::from_utf8_lossy(&out).into_owned(), hidden)
    }

    #[test]
    fn tables_align_numbers_and_stop_at_the_limit() {
        let (text, hidden) = written(Format::Table, 2);
        assert_eq!(hidden, 1);
        assert!(text.contains("│    1.5 ┆ a    │") && text.contains("│   NULL ┆ b,c  │"), "{text}");
        assert!(!text.contains("100.0"));
        assert_eq!(written(Format::Table, 0).1, 0);
    }

    #[test]
    fn csv_and_json_hold_every_row() {
        assert_eq!(written(Format::Csv, 1).0, "number,word\n1.5,a\n,\"b,c\"\n100.0,d\n");
        let lines = "{\"number\":1.5,\"word\":\"a\"}\n{\"number\":null,\"word\":\"b,c\"}\n{\"number\":100.0,\"word\":\"d\"}\n";
        assert_eq!(written(Format::Json, 1).0, lines);
    }

    #[test]
    fn arrow_reads_back() {
        let mut out = Vec::new();
        let mut writer = Writer::new(Format::Arrow, &mut out, batch().schema(), 0).unwrap();
        writer.write(&batch()).unwrap();
        writer.finish().unwrap();
        let reader = arrow::ipc::reader::StreamReader::try_new(out.as_slice(), None).unwrap();
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [batch()]);
    }

    #[test]
    fn nested_values_are_json_in_a_csv() {
        let numbers = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]);
        let batch = RecordBatch::try_from_iter([("list", Arc::new(numbers) as ArrayRef)]).unwrap();
        let mut out = Vec::new();
        let mut writer = Writer::new(Format::Csv, &mut out, batch.schema(), 0).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        assert_eq!(String::from_utf8_lossy(&out), "list\n\"[1,null]\"\n\"\"\n");
    }

    #[test]
    fn an_empty_csv_has_its_header() {
        let mut out = Vec::new();
        let writer = Writer::new(Format::Csv, &mut out, batch().schema(), 0).unwrap();
        writer.finish().unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "number,word\n");
    }
}
