//! A folder as a sink.

use super::commit;
use super::encode::Format;
use super::writer::TaskWriter;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{
    Commit, OptionSpec, Options, Result, Sink, SinkCapabilities, SinkSpec, SinkWriter, WriteScope, Written,
    store,
};
use tidemill_engine::object_stores::object_store_for;

pub const OPTIONS: &[OptionSpec] = &[OptionSpec {
    name: "format",
    required: false,
    default: Some("parquet"),
    doc: "parquet or csv (with a header line)",
}];

/// One folder; the target is its location.
#[derive(Debug)]
pub struct FilesSink {
    /// Rooted at the folder.
    pub(super) folder: Arc<dyn ObjectStore>,
    pub(super) format: Format,
}

/// The sink of `spec`. Connects only when it is used.
pub fn sink(spec: &SinkSpec, config: &Config) -> Result<Arc<dyn Sink>> {
    let options = Options::new("files", &spec.options, OPTIONS, |_| false)?;
    let format = options.require("format")?.parse()?;
    let location = store::location(&spec.target)?;
    let root = Path::from_url_path(location.path()).map_err(object_store::Error::from)?;
    let folder = Arc::new(PrefixStore::new(object_store_for(&location, config)?, root));
    Ok(Arc::new(FilesSink { folder, format }))
}

/// What a task hands to the committer: one staged file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Staged {
    /// Below the folder.
    pub(super) path: String,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

#[async_trait]
impl Sink for FilesSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities { transactional: false, idempotent: true, upsert: false }
    }

    async fn prepare(&self, schema: &SchemaRef) -> Result<()> {
        self.format.check(schema)
    }

    async fn writer(&self, scope: &WriteScope, schema: &SchemaRef) -> Result<Box<dyn SinkWriter>> {
        self.format.check(schema)?;
        let name = format!("{}.{}", scope.task, self.format.extension());
        let path = Path::from_iter([commit::STAGING, scope.job.as_str(), &scope.run.to_string(), &name]);
        Ok(Box::new(TaskWriter::new(self.folder.clone(), self.format, path, schema)?))
    }

    async fn committed(&self, job: &str) -> Result<Option<u64>> {
        commit::newest(self, job).await
    }

    async fn commit(&self, job: &str, run: u64, written: &[Written]) -> Result<Commit> {
        commit::commit(self, job, run, written).await
    }

    async fn count(&self, job: &str, run: u64) -> Result<Option<u64>> {
        commit::rows(self, job, run).await
    }
}
