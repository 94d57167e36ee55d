//! Where rows wait for their commit: Parquet files of one chunk each in the checkpoint store, under
//! `loads/{job}/{run}/`. The folder of a run is the sink's own; it goes when the run is committed.

use super::types::digits;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{Code, Error, Result, SinkWriter, WriteScope, Written, store};

/// A chunk ends here even when it has fewer rows than it may: it is held in memory, by the writer and again by
/// the committer, and ClickHouse too wants a block of a reasonable size.
const CHUNK_BYTES: usize = 128 << 20;

/// One staged chunk, as its [`Written::descriptor`] says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    /// In the checkpoint store.
    pub(super) path: String,
    pub(super) rows: u64,
    /// Of the file, with its CRC-32: a file that another hand changed is not loaded.
    pub(super) bytes: u64,
    pub(super) crc32: u32,
    /// Columns that hold a NULL.
    pub(super) nulls: BTreeSet<String>,
    /// What columns of time need to be kept unharmed.
    pub(super) times: BTreeMap<String, TimeFacts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TimeFacts {
    /// Digits of a second's fraction, in steps of three.
    pub(super) digits: u32,
    /// Some instant is outside of what 32 bits of seconds hold.
    pub(super) beyond_datetime: bool,
}

/// The checkpoint store, as this sink uses it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl Stage {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let (store, root) = store::open(&store::location(&config.checkpoints())?, config)?;
        Ok(Self { store, root })
    }

    fn folder(&self, job: &str, run: u64) -> Path {
        self.root.clone().join("loads").join(job).join(run.to_string())
    }

    /// The rows of a chunk, as one batch.
    pub(super) async fn read(&self, chunk: &Chunk) -> Result<RecordBatch> {
        let path = Path::parse(&chunk.path).map_err(|error| Error::new(Code::Corrupt, error.to_string()))?;
        let file = self.store.get(&path).await?.bytes().await?;
        if file.len() as u64 != chunk.bytes || crc32fast::hash(&file) != chunk.crc32 {
            return Err(Error::new(Code::Corrupt, format!("the staged file `{path}` was changed"))
                .hint("run the load again for this interval"));
        }
        let rows = chunk.rows as usize;
        tokio::task::spawn_blocking(move || decode(file, rows)).await.map_err(Error::internal)?
    }

    /// Removes what tasks staged for the run, failed tries included. Best effort: what stays costs only space.
    pub(super) async fn clear(&self, job: &str, run: u64) {
        let folder = self.folder(job, run);
        let paths = self.store.list(Some(&folder)).map_ok(|object| object.location).boxed();
        let removed: Result<Vec<Path>, _> = self.store.delete_stream(paths).try_collect().await;
        if let Err(error) = removed {
            tracing::warn!(%error, %folder, "staged files of a committed run stay behind");
        }
    }
}

fn decode(file: Bytes, rows: usize) -> Result<RecordBatch> {
    let corrupt =
        |error: &dyn std::fmt::Display| Error::new(Code::Corrupt, format!("a staged file: {error}"));
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| corrupt(&error))?
        .with_batch_size(rows.max(1))
        .build()
        .map_err(|error| corrupt(&error))?;
    match (reader.next().transpose()?, reader.next()) {
        (Some(batch), None) if batch.num_rows() == rows => Ok(batch),
        _ => Err(corrupt(&format!("it does not hold {rows} rows"))),
    }
}

/// Cuts a task's rows into chunks.
pub(super) struct StageWriter {
    stage: Stage,
    folder: Path,
    task: String,
    schema: SchemaRef,
    chunk_rows: usize,
    open: Option<Open>,
    written: Vec<Written>,
}

/// The chunk that is being filled.
struct Open {
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
    bytes: usize,
    chunk: Chunk,
}

impl StageWriter {
    pub(super) fn new(stage: Stage, scope: &WriteScope, schema: SchemaRef, chunk_rows: usize) -> Self {
        let folder = stage.folder(&scope.job, scope.run);
        Self { stage, folder, task: scope.task.clone(), schema, chunk_rows, open: None, written: Vec::new() }
    }

    fn open(&mut self) -> Result<&mut Open> {
        if self.open.is_none() {
            let properties = WriterProperties::builder()
                .set_max_row_group_row_count(Some(self.chunk_rows))
                .set_compression(Compression::SNAPPY)
                .build();
            let writer = ArrowWriter::try_new(Vec::new(), self.schema.clone(), Some(properties))
                .map_err(Error::internal)?;
            self.open = Some(Open { writer, rows: 0, bytes: 0, chunk: Chunk::default() });
        }
        self.open.as_mut().ok_or_else(|| Error::internal("no open chunk"))
    }

    async fn finish_chunk(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let file = Bytes::from(open.writer.into_inner().map_err(Error::internal)?);
        let path = self.folder.clone().join(format!("{}-{:05}.parquet", self.task, self.written.len()));
        let chunk = Chunk {
            path: path.to_string(),
            rows: open.rows as u64,
            bytes: file.len() as u64,
            crc32: crc32fast::hash(&file),
            ..open.chunk
        };
        self.stage.store.put(&path, file.into()).await?;
        self.written.push(Written {
            rows: chunk.rows,
            bytes: chunk.bytes,
            descriptor: serde_json::to_value(&chunk)?,
        });
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for StageWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let mut rest = batch;
        while rest.num_rows() > 0 {
            let limit = self.chunk_rows;
            let open = self.open()?;
            let part = rest.slice(0, rest.num_rows().min(limit - open.rows));
            rest = rest.slice(part.num_rows(), rest.num_rows() - part.num_rows());
            open.writer.write(&part).map_err(Error::internal)?;
            open.rows += part.num_rows();
            open.bytes += bytes(&part)?;
            note_values(&part, &mut open.chunk)?;
            if open.rows == limit || open.bytes >= CHUNK_BYTES {
                self.finish_chunk().await?;
            }
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Vec<Written>> {
        self.finish_chunk().await?;
        Ok(self.written)
    }

    async fn abort(self: Box<Self>) {
        for written in &self.written {
            let Some(path) = written.descriptor.get("path").and_then(|path| path.as_str()) else { continue };
            // What stays goes with the folder of the run.
            let _ = self.stage.store.delete(&Path::from(path)).await;
        }
    }
}

fn bytes(batch: &RecordBatch) -> Result<usize> {
    let mut sum = 0;
    for column in batch.columns() {
        sum += column.to_data().get_slice_memory_size()?;
    }
    Ok(sum)
}

/// Notes what decides whether the values fit the target's columns: the committer knows those, tasks do not.
fn note_values(batch: &RecordBatch, chunk: &mut Chunk) -> Result<()> {
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if column.logical_null_count() > 0 {
            chunk.nulls.insert(field.name().clone());
        }
        if let DataType::Timestamp(unit, _) = field.data_type() {
            let scale = digits(*unit);
            let facts = chunk.times.entry(field.name().clone()).or_default();
            let ticks = cast(column, &DataType::Int64)?;
            for tick in ticks.as_primitive::<Int64Type>().iter().flatten() {
                facts.note(tick, scale);
            }
        }
    }
    Ok(())
}

impl TimeFacts {
    fn note(&mut self, tick: i64, scale: u32) {
        while self.digits < scale && tick % 10_i64.pow(scale - self.digits) != 0 {
            self.digits += 3;
        }
        self.beyond_datetime |= u32::try_from(tick.div_euclid(10_i64.pow(scale))).is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema, TimeUnit};

    fn batch(values: Vec<Option<i64>>) -> RecordBatch {
        let times: TimestampMicrosecondArray = values.iter().map(|v| v.map(|v| v * 1_000_000)).collect();
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(values)), Arc::new(times)])
            .unwrap()
    }

    fn stage(dir: &tempfile::TempDir) -> Stage {
        let mut config = Config::default();
        config.lake.root = dir.path().to_str().unwrap().to_owned();
        Stage::new(&config).unwrap()
    }

    fn scope() -> WriteScope {
        WriteScope { job: "revenue-1".to_owned(), run: 3, task: "0-a".to_owned() }
    }

    fn chunks(written: &[Written]) -> Vec<Chunk> {
        written.iter().map(|w| serde_json::from_value(w.descriptor.clone()).unwrap()).collect()
    }

    #[tokio::test]
    async fn rows_come_back_in_chunks_of_the_asked_size() {
        let dir = tempfile::tempdir().unwrap();
        let stage = stage(&dir);
        let schema = batch(vec![]).schema();
        let mut writer = Box::new(StageWriter::new(stage.clone(), &scope(), schema, 4));
        writer.write(batch((0..3).map(Some).collect())).await.unwrap();
        writer.write(batch((3..10).map(Some).collect())).await.unwrap();
        let chunks = chunks(&writer.close().await.unwrap());
        assert_eq!(chunks.iter().map(|chunk| chunk.rows).collect::<Vec<_>>(), [4, 4, 2]);
        let mut values = Vec::new();
        for chunk in &chunks {
            let batch = stage.read(chunk).await.unwrap();
            values.extend(batch.column(0).as_primitive::<Int64Type>().values().to_vec());
        }
        assert_eq!(values, (0..10).collect::<Vec<_>>());
        stage.clear("revenue-1", 3).await;
        assert_eq!(stage.read(&chunks[0]).await.unwrap_err().code, Code::NotFound);
    }

    #[tokio::test]
    async fn a_task_without_rows_stages_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Box::new(StageWriter::new(stage(&dir), &scope(), batch(vec![]).schema(), 4));
        writer.write(batch(vec![])).await.unwrap();
        assert_eq!(writer.close().await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_changed_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let stage = stage(&dir);
        let mut writer = Box::new(StageWriter::new(stage.clone(), &scope(), batch(vec![]).schema(), 4));
        writer.write(batch(vec![Some(1)])).await.unwrap();
        let chunk = chunks(&writer.close().await.unwrap()).remove(0);
        stage.store.put(&Path::parse(&chunk.path).unwrap(), "other".into()).await.unwrap();
        assert_eq!(stage.read(&chunk).await.unwrap_err().code, Code::Corrupt);
    }

    #[tokio::test]
    async fn what_decides_about_columns_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Box::new(StageWriter::new(stage(&dir), &scope(), batch(vec![]).schema(), 2));
        writer.write(batch(vec![Some(1), Some(2), Some(3), None])).await.unwrap();
        let chunks = chunks(&writer.close().await.unwrap());
        assert!(chunks[0].nulls.is_empty());
        assert!(chunks[1].nulls.contains("n"));
        assert_eq!(chunks[0].times["at"], TimeFacts::default());
    }

    #[test]
    fn fractions_and_ranges_of_instants() {
        let facts = |tick: i64, scale: u32| {
            let mut facts = TimeFacts::default();
            facts.note(tick, scale);
            (facts.digits, facts.beyond_datetime)
        };
        assert_eq!(facts(5_000_000_000, 9), (0, false));
        assert_eq!(facts(5_001_000_000, 9), (3, false));
        assert_eq!(facts(1, 9), (9, false));
        assert_eq!(facts(1, 6), (6, false));
        assert_eq!(facts(-1, 0), (0, true));
        assert_eq!(facts(i64::from(u32::MAX) + 1, 0), (0, true));
    }
}
