//! The care of a lake's tables: what happened to them, and what is done to keep them small and fast.
//!
//! Answers are batches with fixed schemas, so that a statement can be described without being run. Column names
//! are Delta's, as Spark shows them.

use crate::TableVersion;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::ReaderBuilder;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tidemill_core::Result;
use url::Url;

/// What is removed by [`Maintenance::vacuum`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacuum {
    /// Files that no version within this time needs are removed; by default what the table itself asks for.
    pub retain: Option<Duration>,
    /// Refuse a `retain` shorter than what the table asks for.
    pub check_retention: bool,
    /// Files that no version ever had may belong to a write that is still running: they are kept for at least
    /// this long, whatever `retain` says.
    pub orphans_for: Duration,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What is known of a table when it is decided what to do for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub version: u64,
    /// The newest version from which a reader can begin.
    pub checkpoint: Option<u64>,
    /// Whether the table lets expired entries of its log go.
    pub cleans_log: bool,
    /// Whether the table may be compacted without being asked.
    pub compacts: bool,
}

#[async_trait]
pub trait Maintenance: Send + Sync + std::fmt::Debug {
    /// The commits, newest first, as [`history_schema`].
    async fn history(&self, location: &Url, limit: Option<usize>) -> Result<RecordBatch>;

    /// One row, as [`detail_schema`].
    async fn detail(&self, location: &Url) -> Result<RecordBatch>;

    /// Removes data files that no version within the retention needs. Gives the paths of what was removed, or
    /// of what would be.
    ///
    /// # Errors
    /// `Code::InvalidStatement` when the retention is too short and is checked.
    async fn vacuum(&self, location: &Url, vacuum: &Vacuum) -> Result<Vec<String>>;

    /// Makes an earlier version the newest one. One row, as [`restore_schema`].
    async fn restore(&self, location: &Url, to: TableVersion) -> Result<RecordBatch>;

    /// Makes a Delta table of the Parquet files that are there; `partitions` are the columns that the folders'
    /// names tell. One row, as [`convert_schema`].
    async fn convert(&self, location: &Url, partitions: &SchemaRef) -> Result<RecordBatch>;

    /// The tables to which this process committed since this was asked for the last time.
    fn written(&self) -> Vec<Url>;

    async fn facts(&self, location: &Url) -> Result<Facts>;

    /// Lets readers begin at the newest version.
    async fn checkpoint(&self, location: &Url) -> Result<()>;

    /// Removes entries of the log that are older than the table keeps them, and gives their number.
    async fn clean_log(&self, location: &Url) -> Result<usize>;
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn text_map() -> DataType {
    let entry = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry.into()), false)), false)
}

fn text_list() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)))
}

fn schema(fields: Vec<(&str, DataType)>) -> SchemaRef {
    let fields: Vec<Field> =
        fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect();
    Arc::new(Schema::new(fields))
}

/// Of `DESCRIBE HISTORY`.
pub fn history_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        schema(vec![
            ("version", DataType::Int64),
            ("timestamp", time()),
            ("userId", DataType::Utf8),
            ("userName", DataType::Utf8),
            ("operation", DataType::Utf8),
            ("operationParameters", text_map()),
            ("job", DataType::Utf8),
            ("notebook", DataType::Utf8),
            ("clusterId", DataType::Utf8),
            ("readVersion", DataType::Int64),
            ("isolationLevel", DataType::Utf8),
            ("isBlindAppend", DataType::Boolean),
            ("operationMetrics", text_map()),
            ("userMetadata", DataType::Utf8),
            ("engineInfo", DataType::Utf8),
        ])
    });
    SCHEMA.clone()
}

/// Of `DESCRIBE DETAIL`.
pub fn detail_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        schema(vec![
            ("format", DataType::Utf8),
            ("id", DataType::Utf8),
            ("name", DataType::Utf8),
            ("description", DataType::Utf8),
            ("location", DataType::Utf8),
            ("createdAt", time()),
            ("lastModified", time()),
            ("partitionColumns", text_list()),
            ("clusteringColumns", text_list()),
            ("numFiles", DataType::Int64),
            ("sizeInBytes", DataType::Int64),
            ("properties", text_map()),
            ("minReaderVersion", DataType::Int32),
            ("minWriterVersion", DataType::Int32),
            ("tableFeatures", text_list()),
        ])
    });
    SCHEMA.clone()
}

/// Of `RESTORE`.
pub fn restore_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        schema(vec![
            ("table_size_after_restore", DataType::Int64),
            ("num_of_files_after_restore", DataType::Int64),
            ("num_removed_files", DataType::Int64),
            ("num_restored_files", DataType::Int64),
            ("removed_files_size", DataType::Int64),
            ("restored_files_size", DataType::Int64),
        ])
    });
    SCHEMA.clone()
}

/// Of `VACUUM`: the table's place, or with `DRY RUN` the files.
pub fn vacuum_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| schema(vec![("path", DataType::Utf8)]));
    SCHEMA.clone()
}

/// Of `CONVERT TO DELTA`.
pub fn convert_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        schema(vec![("numConvertedFiles", DataType::Int64), ("sizeInBytes", DataType::Int64)])
    });
    SCHEMA.clone()
}

/// Of `OPTIMIZE`.
pub fn optimize_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let structure = |fields: Vec<(&str, DataType)>| DataType::Struct(schema(fields).fields().clone());
        let sizes = || {
            structure(vec![
                ("min", DataType::Int64),
                ("max", DataType::Int64),
                ("avg", DataType::Float64),
                ("totalFiles", DataType::Int64),
                ("totalSize", DataType::Int64),
            ])
        };
        let metrics = structure(vec![
            ("numFilesAdded", DataType::Int64),
            ("numFilesRemoved", DataType::Int64),
            ("filesAdded", sizes()),
            ("filesRemoved", sizes()),
            ("partitionsOptimized", DataType::Int64),
            ("numBatches", DataType::Int64),
            ("totalConsideredFiles", DataType::Int64),
            ("totalFilesSkipped", DataType::Int64),
        ]);
        schema(vec![("path", DataType::Utf8), ("metrics", metrics)])
    });
    SCHEMA.clone()
}

/// A batch of JSON objects.
pub fn rows(schema: &SchemaRef, rows: &[Value]) -> Result<RecordBatch> {
    let mut decoder =
        ReaderBuilder::new(schema.clone()).with_batch_size(rows.len().max(1)).build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())))
}
