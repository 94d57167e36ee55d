//! Ballista's own execution of tasks, with our scans and our errors: whole on their way to the client, and tried
//! again when they are transient. By itself Ballista sends text, and tries only I/O errors again.

use crate::connections::Connections;
use ballista_core::JobId;
use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::{
    RuntimeStatsReport, ShuffleWritePartition, TaskColumnStats, WindowStateReport,
};
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::prelude::SessionConfig;
use std::fmt;
use std::sync::Arc;
use tidemill_engine::{classify, scan, wire_error};

pub(crate) struct Execution {
    inner: DefaultExecutionEngine,
    runtime: Arc<RuntimeEnv>,
}

impl Execution {
    pub(crate) fn new(runtime: Arc<RuntimeEnv>) -> Self {
        Self { inner: DefaultExecutionEngine::with_client_pool(Arc::new(Connections::default())), runtime }
    }
}

impl ExecutionEngine for Execution {
    fn create_query_stage_exec(
        &self,
        job_id: JobId,
        stage_id: usize,
        task_id: usize,
        global_output_partition_ids: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work_dir: &str,
        config: &SessionConfig,
    ) -> DfResult<Arc<dyn QueryStageExecutor>> {
        let context =
            TaskContext::default().with_session_config(config.clone()).with_runtime(self.runtime.clone());
        let plan = scan::prepare(plan, &Arc::new(context), scan::Rows::Travel)?;
        let inner = self.inner.create_query_stage_exec(
            job_id,
            stage_id,
            task_id,
            global_output_partition_ids,
            plan,
            work_dir,
            config,
        )?;
        Ok(Arc::new(Stage { inner }))
    }
}

#[derive(Debug)]
struct Stage {
    inner: Arc<dyn QueryStageExecutor>,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait::async_trait]
impl QueryStageExecutor for Stage {
    async fn execute_query_stage(
        &self,
        task_id: usize,
        context: Arc<TaskContext>,
    ) -> DfResult<Vec<ShuffleWritePartition>> {
        self.inner.execute_query_stage(task_id, context).await.map_err(structured)
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.inner.collect_plan_metrics()
    }

    fn collect_runtime_stats_reports(&self) -> Vec<RuntimeStatsReport> {
        self.inner.collect_runtime_stats_reports()
    }

    fn collect_window_state_reports(&self) -> DfResult<Vec<WindowStateReport>> {
        self.inner.collect_window_state_reports()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.inner.collect_column_stats()
    }
}

fn structured(error: DataFusionError) -> DataFusionError {
    as_text(&error).unwrap_or(error)
}

/// `None` where Ballista knows the error and what to do about it.
fn as_text(error: &DataFusionError) -> Option<DataFusionError> {
    match error.find_root() {
        DataFusionError::IoError(_) => return None,
        DataFusionError::External(inner) => match inner.downcast_ref::<BallistaError>() {
            // What its writer of a shuffle was given.
            Some(BallistaError::DataFusionError(below)) => return as_text(below),
            // Such as a failed fetch, which makes it run the stage before again.
            Some(_) => return None,
            None => {}
        },
        _ => {}
    }
    let ours = classify(error);
    let text = wire_error::to_text(&ours);
    Some(match ours.is_transient() {
        true => DataFusionError::IoError(std::io::Error::other(text)),
        false => DataFusionError::Execution(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_core::{Code, Error};
    use tidemill_engine::to_datafusion;

    #[test]
    fn transient_errors_become_such_that_are_tried_again() {
        let transient = Error::new(Code::Unreachable, "broker away");
        let mapped = structured(to_datafusion(transient.clone()));
        assert!(matches!(mapped, DataFusionError::IoError(_)));
        assert_eq!(wire_error::from_text(&mapped.to_string(), Code::Internal), transient);
        let lasting = structured(to_datafusion(Error::new(Code::BadData, "no number")));
        assert!(matches!(lasting, DataFusionError::Execution(_)));
        let below = Box::new(DataFusionError::ResourcesExhausted("no more".to_owned()));
        let by_writer = DataFusionError::External(Box::new(BallistaError::DataFusionError(below)));
        let text = structured(DataFusionError::Shared(Arc::new(by_writer))).to_string();
        assert_eq!(wire_error::from_text(&text, Code::Internal).code, Code::ResourcesExhausted);
        let own = DataFusionError::External(Box::new(BallistaError::General("own".to_owned())));
        assert!(matches!(structured(own), DataFusionError::External(_)));
    }
}
