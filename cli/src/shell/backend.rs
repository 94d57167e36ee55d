//! Where statements run.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use tidemill_core::{JobId, Result};
use tidemill_engine::Progress;
use tidemill_scheduler::frontend::api::AnswerKind;

/// A statement under way; dropping it cancels the job.
pub(crate) struct Running {
    pub(crate) job: JobId,
    pub(crate) kind: AnswerKind,
    /// The engine that runs it, as users write it in `SET engine`.
    pub(crate) engine: Option<&'static str>,
    pub(crate) schema: SchemaRef,
    pub(crate) rows: BoxStream<'static, Result<RecordBatch>>,
}

#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// What the prompt says about the place.
    fn place(&self) -> String;

    async fn execute(&self, sql: &str) -> Result<Running>;

    async fn cancel(&self, job: &JobId) -> Result<()>;

    /// `None` when it is not known.
    async fn progress(&self, job: &JobId) -> Option<Progress>;
}
