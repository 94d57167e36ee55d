//! Writes one task's rows into files of a Delta table. They belong to the table only with the commit.

use super::error::from_delta;
use super::rules::{self, Rules};
use super::sink::Added;
use super::table::{Loaded, Table};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::Add;
use deltalake_core::operations::write::WriterStatsConfig;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use std::num::NonZeroU64;
use std::sync::Arc;
use tidemill_core::{Error, Result, SinkWriter, Written};

/// Rows that are encoded between two looks at the size of a file.
const WRITE_BATCH_ROWS: usize = 8192;

pub(super) struct TaskWriter {
    table: Arc<Table>,
    table_id: String,
    rules: Rules,
    /// What the files keep, for who commits them.
    kept: Vec<String>,
    /// Gone once it was closed or aborted.
    files: Option<DeltaWriter>,
}

impl TaskWriter {
    pub(super) fn new(
        table: Arc<Table>,
        loaded: &Loaded,
        rules: Rules,
        target_file_size: NonZeroU64,
    ) -> Self {
        let schema = rules.schema().clone();
        let statistics = WriterStatsConfig::from_config(loaded.snapshot().table_configuration());
        let config = WriterConfig::new(
            schema.clone(),
            loaded.partition_columns(),
            None,
            Some(target_file_size),
            Some(WRITE_BATCH_ROWS),
            statistics.num_indexed_cols,
            statistics.stats_columns,
        );
        // Every file's name holds a UUID of its writer, so tasks and tries never meet.
        let files = DeltaWriter::new(table.log_store.object_store(None), config);
        let table_id = loaded.snapshot().metadata().id().to_owned();
        let kept = rules::texts(loaded.snapshot(), &schema);
        Self { table, table_id, rules, kept, files: Some(files) }
    }

    fn gone(&self) -> Error {
        Error::internal("a Delta writer was used after its end")
    }

    async fn finish(&mut self) -> Result<Vec<Add>> {
        let files = self.files.take().ok_or_else(|| self.gone())?;
        files.close().await.map_err(|error| from_delta(error, &self.table.url))
    }
}

#[async_trait]
impl SinkWriter for TaskWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let batch = self.rules.apply(&batch)?;
        let Some(files) = &mut self.files else { return Err(self.gone()) };
        files.write(&batch).await.map_err(|error| from_delta(error, &self.table.url))
    }

    async fn close(mut self: Box<Self>) -> Result<Vec<Written>> {
        let adds = self.finish().await?;
        let added = |add| Added { table: self.table_id.clone(), rules: self.kept.clone(), add };
        adds.into_iter().map(|add| added(add).into_written()).collect()
    }

    /// Finishes the files and deletes them: their names are known only then. What cannot be deleted is left to
    /// VACUUM.
    async fn abort(mut self: Box<Self>) {
        let adds = match self.finish().await {
            Ok(adds) => adds,
            Err(error) => return tracing::warn!(%error, "files of an aborted write are left behind"),
        };
        let store = self.table.log_store.object_store(None);
        for add in adds {
            if let Err(error) = store.delete(&Path::from(add.path.as_str())).await {
                tracing::warn!(path = add.path, %error, "a file of an aborted write is left behind");
            }
        }
    }
}

impl Drop for TaskWriter {
    /// A cancelled task drops its writer. Parts of unfinished uploads are invisible to VACUUM and cost money, so
    /// they are given up here.
    fn drop(&mut self) {
        if let (Some(files), Ok(runtime)) = (self.files.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = files.abort().await {
                    tracing::warn!(%error, "an unfinished upload is left behind");
                }
            });
        }
    }
}
