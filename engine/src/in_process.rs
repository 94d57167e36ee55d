//! Runs a plan in this process, as DataFusion does.

use crate::guard::guard;
use crate::stages::{self, StageReports};
use crate::{Engine, EngineKind, Execution, JobSpec, Progress, from_datafusion};
use crate::{cooperative, scan};
use async_trait::async_trait;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use datafusion::prelude::SessionConfig;
use std::sync::Arc;
use tidemill_core::Result;

/// See [`EngineKind::InProcess`].
#[derive(Clone, Copy, Debug)]
pub struct InProcess {
    slots: usize,
}

impl InProcess {
    /// `slots` is what the policy may count with: the partitions of a plan.
    pub fn new(slots: usize) -> Self {
        Self { slots }
    }
}

#[async_trait]
impl Engine for InProcess {
    fn kind(&self) -> EngineKind {
        EngineKind::InProcess
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn planning(&self, session: &SessionConfig, _: Option<u64>) -> SessionConfig {
        let mut config = session.clone();
        // Within one process a subquery may run beside the plan.
        config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = true;
        config
    }

    async fn prepare(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: Arc<TaskContext>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        ready(plan)
    }

    async fn execute(
        &self,
        _: JobSpec,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Execution> {
        let plan = ready(plan)?;
        let plan = scan::prepare(plan, &context, scan::Rows::Stay).map_err(from_datafusion)?;
        let stream = execute_stream(plan.clone(), context).map_err(from_datafusion)?;
        let (watched, run) = (plan.clone(), plan.clone());
        let stages: StageReports = Arc::new(move || {
            let stages = vec![stages::one_stage(&run)];
            Box::pin(async move { Ok(stages) })
        });
        let progress = Arc::new(move || leaf_progress(&watched));
        Ok(Execution { stream: guard(stream), progress, plan, stages })
    }
}

/// The plan as it is run.
fn ready(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    cooperative::joins(coalesced(plan)).map_err(from_datafusion)
}

/// The plan with one output partition.
fn coalesced(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.output_partitioning().partition_count() {
        1 => plan,
        _ => Arc::new(CoalescePartitionsExec::new(plan)),
    }
}

/// One stage, what its leaves have read so far, and what was spilled.
fn leaf_progress(plan: &Arc<dyn ExecutionPlan>) -> Progress {
    let mut progress = Progress { stages: 1, tasks: 1, ..Progress::default() };
    let walked = plan.apply(|node| {
        let Some(metrics) = node.metrics() else { return Ok(TreeNodeRecursion::Continue) };
        progress.spilled += metrics.spilled_bytes().unwrap_or(0) as u64;
        if node.children().is_empty() {
            progress.rows += metrics.output_rows().unwrap_or(0) as u64;
            progress.bytes += bytes_scanned(&metrics);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk itself cannot fail");
    progress
}

fn bytes_scanned(metrics: &MetricsSet) -> u64 {
    metrics
        .sum(|metric| matches!(metric.value(), MetricValue::Count { name, .. } if name == "bytes_scanned"))
        .map_or(0, |value| value.as_usize() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JobKind;
    use crate::exec::descriptors;
    use futures::TryStreamExt;
    use tidemill_core::JobId;

    #[tokio::test]
    async fn all_partitions_are_read_and_counted() {
        let plan = descriptors(&["a", "b", "c"]).unwrap();
        let job = JobSpec { id: JobId::new("j"), kind: JobKind::Query, title: String::new() };
        let run = InProcess::new(2).execute(job, plan, Arc::new(TaskContext::default())).await.unwrap();
        let batches: Vec<_> = run.stream.try_collect().await.unwrap();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 3);
        let stages = (run.stages)().await.unwrap();
        assert_eq!((stages.len(), stages[0].rows), (1, 3), "{stages:?}");
    }
}
