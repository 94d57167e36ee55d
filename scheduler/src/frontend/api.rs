//! What clients can ask of the engine. The gateway and the shell know only this trait; the frontend
//! implements it over sessions, the SQL front end and the engines.
//!
//! ```text
//! Flight SQL ─┐
//! HTTP        ├─▶ dyn Frontend ──execute──▶ Answer { job, schema, stream, progress }
//! shell       ┘
//! ```

use arrow::array::{RecordBatch, UInt64Array};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tidemill_core::{Error, JobId, Result};
use tidemill_engine::{EngineKind, Progress, from_datafusion};

/// One client's session: its `SET` variables and its current schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(String);

impl SessionId {
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the stream of an [`Answer`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// The rows that were asked for.
    Rows,
    /// Rows of one `count` column of type `UInt64`, whose sum is the number of rows written or removed.
    Count,
    /// No rows; the stream only has an end.
    Nothing,
}

/// A statement under way. Nothing is promised to have happened before the stream has ended without an error;
/// dropping the stream cancels the job.
pub struct Answer {
    pub job: JobId,
    pub kind: AnswerKind,
    pub schema: SchemaRef,
    pub stream: SendableRecordBatchStream,
    pub progress: Arc<dyn Fn() -> Progress + Send + Sync>,
    /// The engine that runs it; `None` for statements that no engine runs.
    pub engine: Option<EngineKind>,
    /// Why that engine was taken.
    pub reason: String,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("job", &self.job)
            .field("kind", &self.kind)
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// Runs the statement to its end; what is then left to read costs nothing. For results that fit in memory.
    pub async fn completed(mut self) -> Result<Self> {
        let mut batches = Vec::new();
        while let Some(batch) = self.stream.next().await {
            batches.push(Ok(batch.map_err(from_datafusion)?));
        }
        let rest = futures::stream::iter(batches);
        self.stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rest));
        Ok(self)
    }

    /// Runs the statement to its end and gives the number of rows written or removed, where it is known.
    pub async fn affected_rows(mut self) -> Result<Option<u64>> {
        let mut sum = None;
        while let Some(batch) = self.stream.next().await {
            let batch = batch.map_err(from_datafusion)?;
            if self.kind == AnswerKind::Count {
                *sum.get_or_insert(0) += count(&batch)?;
            }
        }
        Ok(sum)
    }
}

fn count(batch: &RecordBatch) -> Result<u64> {
    let counts = batch.columns().first().and_then(|column| column.as_any().downcast_ref::<UInt64Array>());
    let counts = counts.ok_or_else(|| Error::internal("a write answered without a `count` column"))?;
    Ok(arrow::compute::sum(counts).unwrap_or(0))
}

/// What a statement would give, found by planning alone.
#[derive(Clone, Debug)]
pub struct Description {
    pub kind: AnswerKind,
    pub schema: SchemaRef,
    /// One field for each parameter, in order, named `$1`, `$2` …; a type that is not known is `Null`.
    pub parameters: SchemaRef,
}

/// Which tables are asked for. Patterns are SQL `LIKE` patterns.
#[derive(Clone, Debug, Default)]
pub struct TableFilter {
    pub catalog: Option<String>,
    pub schema_pattern: Option<String>,
    pub name_pattern: Option<String>,
    /// Whether [`TableInfo::columns`] must be filled in; it may cost a read of each table's log.
    pub with_columns: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaInfo {
    pub catalog: String,
    pub schema: String,
}

#[derive(Clone, Debug)]
pub struct TableInfo {
    pub catalog: String,
    pub schema: String,
    pub name: String,
    /// `TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub kind: &'static str,
    /// `None` when it was not asked for, or when the table could not be opened.
    pub columns: Option<SchemaRef>,
}

/// Rows for a table, as they come.
pub struct Ingest {
    pub catalog: Option<String>,
    /// The session's, when there is none.
    pub schema: Option<String>,
    pub table: String,
    /// Whether a table that is not there is made.
    pub create: bool,
    pub into: IngestInto,
    pub rows: SendableRecordBatchStream,
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { catalog, schema, table, create, into, .. } = self;
        write!(f, "Ingest({catalog:?}.{schema:?}.{table}, create: {create}, into: {into:?})")
    }
}

/// What an ingest does with a table that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestInto {
    /// Nothing: it is an error.
    NewTable,
    Append,
    Replaced,
}

/// The engine as its clients see it.
#[async_trait]
pub trait Frontend: Send + Sync + 'static {
    async fn open_session(&self, user: &str) -> Result<SessionId>;

    /// Forgets the session; its running jobs go on. Not known is not an error.
    async fn close_session(&self, session: &SessionId);

    /// Plans the statement, admits it and starts it. `params` binds `$1`, `$2` … by position; with several
    /// rows the statement is run for each of them as one job (see [`crate::frontend::params`]).
    async fn execute(&self, session: &SessionId, sql: &str, params: Option<RecordBatch>) -> Result<Answer>;

    /// Starts to write the rows into a table: the answer is a count, and nothing is visible before it.
    async fn ingest(&self, session: &SessionId, ingest: Ingest) -> Result<Answer>;

    /// The value of a variable of the session, as SHOW gives it.
    async fn variable(&self, session: &SessionId, name: &str) -> Result<String>;

    /// Plans the statement without running it.
    async fn describe(&self, session: &SessionId, sql: &str) -> Result<Description>;

    /// Does with an encoded `substrait.Plan` what [`Self::execute`] does with text.
    async fn execute_substrait(
        &self,
        session: &SessionId,
        plan: &[u8],
        params: Option<RecordBatch>,
    ) -> Result<Answer>;

    /// Reads a Substrait plan without running it.
    async fn describe_substrait(&self, session: &SessionId, plan: &[u8]) -> Result<Description>;

    /// Ends the job: its stream then gives `Code::Cancelled`. False when no such job is running, or, where a user
    /// is named, none of this user's.
    async fn cancel(&self, job: &JobId, user: Option<&str>) -> Result<bool>;

    /// How far a running job is; `None` when no such job is running.
    async fn progress(&self, job: &JobId) -> Option<Progress>;

    /// Every schema that the session sees.
    async fn schemas(&self, session: &SessionId) -> Result<Vec<SchemaInfo>>;

    /// At least the tables that pass the filter; the gateway filters once more.
    async fn tables(&self, session: &SessionId, filter: &TableFilter) -> Result<Vec<TableInfo>>;

    /// Whether statements can be taken now; the error says what is missing.
    async fn ready(&self) -> Result<()>;
}
