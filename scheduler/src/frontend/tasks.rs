//! The tasks of a job, as far as its plan knows them, for `tidemill.tasks`.
//!
//! In one process a task is a partition of the plan, with what its operators measured. On the executors it is one
//! that the plan was cut into; what it measures stays there. The staged engine cuts its plan elsewhere: only its
//! numbers of stages are known, in `tidemill.jobs`.

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion_distributed::NetworkBoundaryExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tasks of one job that are shown.
const SHOWN: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskView {
    /// The first one gives the rows to the client.
    pub(super) stage: u64,
    pub(super) task: u64,
    /// `None` where the task runs elsewhere.
    pub(super) measured: Option<Measured>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measured {
    /// Rows and bytes that its leaves have read.
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) spilled: u64,
    /// Time that its operators computed, in nanoseconds.
    pub(super) compute_ns: u64,
}

pub(super) fn tasks(plan: &Arc<dyn ExecutionPlan>) -> Vec<TaskView> {
    let (mut here, mut elsewhere) = (BTreeMap::new(), Vec::new());
    visit(plan, true, &mut here, &mut elsewhere);
    let here = here.into_iter().map(|(task, measured)| TaskView { stage: 1, task, measured: Some(measured) });
    let elsewhere = elsewhere.into_iter().zip(2..).flat_map(|(tasks, stage)| {
        (0..tasks).map(move |task| TaskView { stage, task: task as u64, measured: None })
    });
    here.chain(elsewhere).take(SHOWN).collect()
}

fn visit(
    plan: &Arc<dyn ExecutionPlan>,
    local: bool,
    here: &mut BTreeMap<u64, Measured>,
    elsewhere: &mut Vec<usize>,
) {
    if local {
        measure(plan, here);
    }
    let boundary = plan.as_network_boundary();
    if let Some(boundary) = &boundary {
        elsewhere.push(boundary.input_stage().task_count());
    }
    let local = local && boundary.is_none();
    plan.children().into_iter().for_each(|child| visit(child, local, here, elsewhere));
}

fn measure(node: &Arc<dyn ExecutionPlan>, here: &mut BTreeMap<u64, Measured>) {
    let leaf = node.children().is_empty();
    for metric in node.metrics().iter().flat_map(|metrics| metrics.iter()) {
        let Some(partition) = metric.partition() else { continue };
        let value = metric.value().as_usize() as u64;
        let task = here.entry(partition as u64).or_default();
        match metric.value() {
            MetricValue::OutputRows(_) if leaf => task.rows += value,
            MetricValue::Count { name, .. } if name == "bytes_scanned" => task.bytes += value,
            MetricValue::SpilledBytes(_) => task.spilled += value,
            MetricValue::ElapsedCompute(_) => task.compute_ns += value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{SessionConfig, SessionContext};

    #[tokio::test]
    async fn a_task_is_a_partition_with_what_it_measured() {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let sql = "SELECT value % 7 AS v, count(*) FROM generate_series(1, 100000) GROUP BY v";
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        assert!(tasks(&plan).is_empty(), "nothing is measured before it runs");
        let rows = datafusion::physical_plan::collect(plan.clone(), context.task_ctx()).await.unwrap();
        assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 7);
        let tasks = tasks(&plan);
        assert_eq!(tasks.iter().map(|task| (task.stage, task.task)).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
        let measured = tasks.iter().filter_map(|task| task.measured);
        assert_eq!(measured.map(|task| task.rows).sum::<u64>(), 100_000);
    }
}
