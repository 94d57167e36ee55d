//! One plan, three engines.

use crate::stages::StageReports;
use async_trait::async_trait;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidemill_core::{JobId, Result};

/// Which engine runs a job. `docs/queries.md` says what each is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    InProcess,
    Pipelined,
    Staged,
}

impl EngineKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EngineKind::InProcess => "in_process",
            EngineKind::Pipelined => "pipelined",
            EngineKind::Staged => "staged",
        }
    }
}

/// What a job is for; policies look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    Query,
    /// A query whose rows nobody wants, only what it took to make them.
    Analyze,
    Write,
    Load,
    Epoch,
}

/// What an engine is told besides the plan.
#[derive(Clone, Debug)]
pub struct JobSpec {
    pub id: JobId,
    pub kind: JobKind,
    /// What a person would call the job: the SQL text, or `epoch 7 of revenue`.
    pub title: String,
}

/// How far a job is. Engines fill in what they know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub stages: u32,
    pub stages_done: u32,
    pub tasks: u32,
    pub tasks_done: u32,
    /// Rows and bytes read by the leaves so far.
    pub rows: u64,
    pub bytes: u64,
    /// Bytes that operators have written to disk because memory was short.
    #[serde(default)]
    pub spilled: u64,
}

/// A running job. Dropping the stream cancels it.
pub struct Execution {
    pub stream: SendableRecordBatchStream,
    /// Reads the progress at this moment.
    pub progress: Arc<dyn Fn() -> Progress + Send + Sync>,
    /// The plan as this engine runs it, for EXPLAIN: `(kind, text)`.
    pub plan: Arc<dyn ExecutionPlan>,
    /// What the stages did, for EXPLAIN ANALYZE.
    pub stages: StageReports,
}

/// Runs bounded physical plans. Plans are made in a session of [`crate::session`] and are ordinary
/// single-node plans; an engine that distributes them does so itself, and anew for each try.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    fn kind(&self) -> EngineKind;

    /// Task slots at the moment: 0 means that it cannot run anything now.
    fn slots(&self) -> usize;

    /// The settings by which a plan for this engine is made, from the session's own and the estimated bytes that
    /// joins may have to hold, if they are known: all that is read but the largest input.
    fn planning(&self, session: &SessionConfig, held: Option<u64>) -> SessionConfig;

    /// The plan as this engine would run it, for EXPLAIN.
    async fn prepare(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Arc<dyn ExecutionPlan>>;

    async fn execute(
        &self,
        job: JobSpec,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Execution>;
}
