//! ClickHouse as a target of loads, exactly once.
//!
//! ```text
//! task ─▶ Stage: Parquet chunks of one block each ─▶ checkpoint store      (nothing in ClickHouse yet)
//!                         │ one descriptor a chunk
//!                         ▼
//! manifest ─▶ commit: INSERT chunk 0, 1, 2 … ─▶ target table               (token `job/run/chunk`)
//!                         └──────── last ────▶ tidemill_loads              (the commit marker)
//! ```
//! ClickHouse has no transaction over several inserts; only one block of one INSERT is atomic. So the rows are
//! decided first, outside of it, and a commit is a walk over fixed chunks that can be taken again from any
//! point. What makes a repeated step harmless:
//! - the deduplication token, as long as the table remembers it (`non_replicated_deduplication_window`, which
//!   is off by default and therefore checked);
//! - the run column (`_tidemill_run`) of tables that we created, which says how many chunks are there, and
//!   proves the count of rows afterwards;
//! - the marker, which is written when all chunks are in.
//!
//! The rows become visible chunk by chunk: [`SinkCapabilities::transactional`] is false.

mod commit;
mod errors;
mod options;
mod session;
mod stage;
mod table;
#[cfg(test)]
mod tests;
mod types;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use options::Settings;
use session::Session;
use stage::{Stage, StageWriter};
use std::sync::Arc;
use table::Table;
use tidemill_core::config::Config;
use tidemill_core::{
    Code, Commit, Error, Result, Sink, SinkCapabilities, SinkSpec, SinkWriter, WriteScope, Written,
};

pub use options::OPTIONS;

/// One table of one ClickHouse server.
#[derive(Debug)]
pub struct ClickHouseSink {
    settings: Settings,
    session: Session,
    stage: Stage,
}

/// The sink of `spec`. Connects only when it is used.
pub fn sink(spec: &SinkSpec, config: &Config) -> Result<Arc<dyn Sink>> {
    let settings = Settings::new(spec)?;
    let session = Session::new(&settings);
    let stage = Stage::new(config)?;
    Ok(Arc::new(ClickHouseSink { settings, session, stage }))
}

impl ClickHouseSink {
    /// The target as it is now; fails where it cannot take a load exactly once.
    async fn table(&self) -> Result<Table> {
        let table = Table::describe(&self.session, &self.settings.table).await?.ok_or_else(|| {
            Error::new(Code::NotFound, format!("ClickHouse has no table `{}`", self.settings.qualified()))
                .hint("create it, or let `create_table` be true")
        })?;
        table.demand_deduplication(&self.settings)?;
        Ok(table)
    }
}

#[async_trait]
impl Sink for ClickHouseSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities { transactional: false, idempotent: true, upsert: false }
    }

    async fn prepare(&self, schema: &SchemaRef) -> Result<()> {
        if self.settings.create_table {
            let statement = table::create_statement(&self.settings, schema)?;
            if Table::describe(&self.session, &self.settings.table).await?.is_none() {
                self.session.execute(&statement).await?;
            }
        }
        self.table().await?.compare(&self.settings, schema)
    }

    async fn writer(&self, scope: &WriteScope, schema: &SchemaRef) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(StageWriter::new(self.stage.clone(), scope, schema.clone(), self.settings.chunk_rows)))
    }

    async fn committed(&self, job: &str) -> Result<Option<u64>> {
        commit::newest(&self.session, &self.settings, job).await
    }

    async fn commit(&self, job: &str, run: u64, written: &[Written]) -> Result<Commit> {
        commit::commit(self, job, run, written).await
    }

    async fn count(&self, job: &str, run: u64) -> Result<Option<u64>> {
        let table = self.table().await?;
        if !table.proves_counts(&self.settings) {
            return Ok(None);
        }
        commit::rows_of_run(&self.session, &self.settings, job, run).await.map(Some)
    }
}
