//! Dead letters: records that could not be processed, kept with their coordinates and the reason.

use crate::Services;
use crate::epoch::EpochScope;
use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};
use tidemill_core::{RawBatch, Result, Sink, SinkSpec, SinkWriter, SplitRange, WriteScope, Written};
use uuid::Uuid;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("payload", DataType::Utf8, true),
        Field::new("payload_raw", DataType::Binary, true),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("epoch", DataType::Int64, false),
    ]))
});

/// Columns of a dead-letter table. `payload` is the record when it is valid UTF-8, otherwise `payload_raw` is.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// The records of `raw` named by `rows` (row, reason) as a batch of [`schema`].
pub(super) fn batch(
    raw: &RawBatch,
    rows: &[(u32, String)],
    scope: &EpochScope,
    range: &SplitRange,
) -> Result<RecordBatch> {
    use arrow::array::Array;
    let (topic, partition) = match range.split.as_str().rsplit_once('/') {
        Some((topic, partition)) => (topic, partition.parse::<i32>().ok()),
        None => (range.split.as_str(), None),
    };
    let mut payload = StringBuilder::new();
    let mut payload_raw = BinaryBuilder::new();
    for (row, _) in rows {
        let row = *row as usize;
        match (raw.payload.is_valid(row), std::str::from_utf8(raw.payload.value(row))) {
            (false, _) => {
                payload.append_null();
                payload_raw.append_null();
            }
            (true, Ok(text)) => {
                payload.append_value(text);
                payload_raw.append_null();
            }
            (true, Err(_)) => {
                payload.append_null();
                payload_raw.append_value(raw.payload.value(row));
            }
        }
    }
    let at = |row: &u32| *row as usize;
    let offsets: Int64Array = rows.iter().map(|(row, _)| Some(raw.position.value(at(row)))).collect();
    let times: TimestampMicrosecondArray = rows
        .iter()
        .map(|(row, _)| {
            let row = at(row);
            raw.timestamp_ms.is_valid(row).then(|| raw.timestamp_ms.value(row).saturating_mul(1000))
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(payload.finish()),
        Arc::new(payload_raw.finish()),
        Arc::new(StringArray::from(vec![topic; rows.len()])),
        Arc::new(Int32Array::from(vec![partition; rows.len()])),
        Arc::new(offsets),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, reason)| reason))),
        Arc::new(Int64Array::from(vec![scope.epoch.0 as i64; rows.len()])),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// Writes a task's dead letters; opens its file only with the first of them.
pub(super) struct DeadLetters {
    sink: Arc<dyn Sink>,
    scope: WriteScope,
    writer: Option<Box<dyn SinkWriter>>,
}

impl DeadLetters {
    pub(super) fn new(services: &Services, sink: &SinkSpec, scope: &EpochScope) -> Result<Self> {
        let scope = WriteScope {
            job: scope.pipeline.as_str().to_owned(),
            run: scope.epoch.0,
            task: format!("{}-{}", scope.attempt, Uuid::new_v4().simple()),
        };
        Ok(Self { sink: services.connectors.sink(sink)?, scope, writer: None })
    }

    pub(super) async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(self.sink.writer(&self.scope, &schema()).await?),
        };
        writer.write(batch).await
    }

    pub(super) async fn close(self) -> Result<Vec<Written>> {
        match self.writer {
            Some(writer) => writer.close().await,
            None => Ok(Vec::new()),
        }
    }

    pub(super) async fn abort(self) {
        if let Some(writer) = self.writer {
            writer.abort().await;
        }
    }
}
