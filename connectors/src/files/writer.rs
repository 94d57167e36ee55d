//! Writes one task's rows into one staged file.

use super::encode::{Encoder, Format};
use super::sink::Staged;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use tidemill_core::{Error, Result, SinkWriter, Written};

pub(super) struct TaskWriter {
    folder: Arc<dyn ObjectStore>,
    path: Path,
    rows: u64,
    /// Gone once it was closed or aborted.
    file: Option<Encoder>,
}

impl TaskWriter {
    pub(super) fn new(
        folder: Arc<dyn ObjectStore>,
        format: Format,
        path: Path,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let file = Encoder::new(format, BufWriter::new(folder.clone(), path.clone()), schema)?;
        Ok(Self { folder, path, rows: 0, file: Some(file) })
    }
}

#[async_trait]
impl SinkWriter for TaskWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Err(Error::internal("a file writer was used after its end"));
        };
        file.write(&batch).await?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<Vec<Written>> {
        if self.rows == 0 {
            self.abort().await;
            return Ok(Vec::new());
        }
        let Some(mut file) = self.file.take() else { return Ok(Vec::new()) };
        let bytes = match file.finish().await {
            Ok(bytes) => bytes,
            Err(error) => {
                // What could be written of it is of no use to anyone.
                let _ = self.folder.delete(&self.path).await;
                return Err(error);
            }
        };
        let staged = Staged { path: self.path.to_string(), rows: self.rows, bytes };
        Ok(vec![Written { rows: self.rows, bytes, descriptor: serde_json::to_value(staged)? }])
    }

    async fn abort(mut self: Box<Self>) {
        if let Some(file) = self.file.take()
            && let Err(error) = file.abort().await
        {
            tracing::warn!(path = %self.path, %error, "an unfinished upload is left behind");
        }
    }
}

impl Drop for TaskWriter {
    /// A cancelled task drops its writer.
    fn drop(&mut self) {
        if let (Some(file), Ok(runtime)) = (self.file.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = file.abort().await {
                    tracing::warn!(%error, "an unfinished upload is left behind");
                }
            });
        }
    }
}
