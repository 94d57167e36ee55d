//! A sink is a writer per task and a committer per job; a commit is idempotent by (job, run).
//!
//! ```text
//! task ─▶ SinkWriter::write* ─▶ close ─▶ [Written] ─┐
//! task ─▶ SinkWriter::write* ─▶ close ─▶ [Written] ─┴▶ manifest ─▶ Sink::commit(job, run, all of them)
//! ```
//! Nothing is visible before the commit, or, for sinks that are not transactional, the commit makes the
//! written rows appear once however often it is tried.

use crate::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Enough to build the sink again anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkSpec {
    pub connector: String,
    /// What is written to within the connection: a table's URL, `database.table`, a folder.
    pub target: String,
    pub options: BTreeMap<String, String>,
}

/// What a sink can honestly do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkCapabilities {
    /// Rows appear all at once, with the commit.
    pub transactional: bool,
    /// A repeated commit of one (job, run) changes nothing.
    pub idempotent: bool,
    /// Rows can replace earlier ones by key.
    pub upsert: bool,
}

/// Who writes: names files and tokens, so that tries do not meet each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteScope {
    /// The pipeline's or load's id, or the job's id for an INSERT.
    pub job: String,
    /// The epoch or the load's run number.
    pub run: u64,
    /// Unique to this try of this task.
    pub task: String,
}

/// What a task wrote: opaque to everyone but its sink, and small.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub rows: u64,
    pub bytes: u64,
    /// The sink's own words, e.g. a Delta `Add` action.
    pub descriptor: serde_json::Value,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// This call made it visible, as the sink's own version (0 where the sink has none).
    Committed { version: u64 },
    /// An earlier call already had.
    AlreadyCommitted,
}

#[async_trait]
pub trait SinkWriter: Send {
    async fn write(&mut self, batch: RecordBatch) -> Result<()>;

    /// Makes everything durable, not visible.
    async fn close(self: Box<Self>) -> Result<Vec<Written>>;

    /// Throws away what was written, as far as that is possible.
    async fn abort(self: Box<Self>);
}

#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    fn capabilities(&self) -> SinkCapabilities;

    /// Creates the target where it may, or compares its schema with `schema` and says what differs.
    async fn prepare(&self, schema: &SchemaRef) -> Result<()>;

    async fn writer(&self, scope: &WriteScope, schema: &SchemaRef) -> Result<Box<dyn SinkWriter>>;

    /// The newest run of `job` that is committed here.
    async fn committed(&self, job: &str) -> Result<Option<u64>>;

    /// Makes what was written visible, once. After an error the caller does not know: it asks
    /// [`Sink::committed`], or simply commits again.
    async fn commit(&self, job: &str, run: u64, written: &[Written]) -> Result<Commit>;

    /// Rows of that run that are in the target now, as far as the sink can prove it; `None` where it cannot
    /// tell them from rows of others. Loads compare it with what they wrote.
    async fn count(&self, _job: &str, _run: u64) -> Result<Option<u64>> {
        Ok(None)
    }
}
