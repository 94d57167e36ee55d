//! Answers of statements that no engine runs.

use super::api::{Answer, AnswerKind};
use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use std::sync::{Arc, LazyLock};
use tidemill_core::{JobId, Result};
use tidemill_engine::{Progress, to_datafusion};
use uuid::Uuid;

static COUNT: LazyLock<SchemaRef> =
    LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)])));

pub(super) fn count_schema() -> SchemaRef {
    COUNT.clone()
}

pub(crate) fn new_job() -> JobId {
    JobId::new(Uuid::now_v7().simple().to_string())
}

/// Text columns, all of them not null.
pub(super) fn text_schema(columns: &[&str]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect();
    Arc::new(Schema::new(fields))
}

/// Done, and nothing to say.
pub(super) fn nothing() -> Answer {
    let schema = Arc::new(Schema::empty());
    answer(AnswerKind::Nothing, schema.clone(), stream(schema, Vec::new()))
}

/// Done, with so many rows.
pub(super) fn counted(rows: u64) -> Answer {
    answer(AnswerKind::Count, count_schema(), counting(std::future::ready(Ok(rows))))
}

/// Rows of text, given by rows.
pub(super) fn text<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> Result<Answer> {
    let schema = text_schema(&columns);
    let batch = text_batch(&schema, rows)?;
    Ok(answer(AnswerKind::Rows, schema.clone(), stream(schema, vec![batch])))
}

pub(super) fn text_batch<const N: usize>(schema: &SchemaRef, rows: &[[String; N]]) -> Result<RecordBatch> {
    let arrays: Vec<ArrayRef> = (0..N)
        .map(|column| {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[column]))) as ArrayRef
        })
        .collect();
    Ok(RecordBatch::try_new(schema.clone(), arrays)?)
}

/// A stream of one count that is known when `work` is done.
pub(super) fn counting(
    work: impl Future<Output = Result<u64>> + Send + 'static,
) -> SendableRecordBatchStream {
    let one = futures::stream::once(async move {
        let rows = work.await.map_err(to_datafusion)?;
        Ok(RecordBatch::try_new(count_schema(), vec![Arc::new(UInt64Array::from(vec![rows]))])?)
    });
    Box::pin(RecordBatchStreamAdapter::new(count_schema(), one))
}

fn stream(schema: SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
}

fn answer(kind: AnswerKind, schema: SchemaRef, stream: SendableRecordBatchStream) -> Answer {
    Answer {
        job: new_job(),
        kind,
        schema,
        stream,
        progress: Arc::new(Progress::default),
        engine: None,
        reason: String::new(),
    }
}
