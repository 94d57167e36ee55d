//! The metrics of a distributed plan, by stage and task.

use crate::from_datafusion;
use crate::guard::GuardExec;
use crate::stages::{Operator, StageReport, count};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::Metric;
use datafusion_distributed::{
    DISTRIBUTED_DATAFUSION_TASK_ID_LABEL, DistributedExec, DistributedMetricsFormat, NetworkBoundaryExt,
    Stage, rewrite_distributed_plan_with_metrics,
};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::Result;

/// Metrics come behind the rows. Tasks that never ran, as under a LIMIT, send none: they are not waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The stages of a plan that was executed; the coordinator's own part, which reads the others, is stage 0.
pub(super) async fn stages(plan: Arc<dyn ExecutionPlan>) -> Result<Vec<StageReport>> {
    if !plan.is::<DistributedExec>() {
        return Ok(vec![crate::stages::one_stage(&plan)]);
    }
    let rewritten = rewrite_distributed_plan_with_metrics(plan.clone(), DistributedMetricsFormat::PerTask);
    let Ok(rewritten) = tokio::time::timeout(PATIENCE, rewritten).await else {
        let unknown = "tasks that were cancelled sent no metrics".to_owned();
        return Ok(vec![StageReport { plan: unknown, ..count("0".to_owned(), 1, &[], |_| None) }]);
    };
    let plan = rewritten.map_err(from_datafusion)?;
    let mut open = vec![Open { number: 0, tasks: 1, plan }];
    let mut reports = Vec::new();
    while let Some(stage) = open.pop() {
        let mut operators = Vec::new();
        collect(&stage.plan, 0, &mut operators, &mut open);
        let report = count(stage.number.to_string(), stage.tasks, &operators, task_of);
        reports.push((stage.number, report));
    }
    reports.sort_by_key(|(number, _)| *number);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

struct Open {
    number: usize,
    tasks: usize,
    plan: Arc<dyn ExecutionPlan>,
}

/// Goes down to the network; what is beyond it are other stages.
fn collect(plan: &Arc<dyn ExecutionPlan>, depth: usize, found: &mut Vec<Operator>, open: &mut Vec<Open>) {
    if plan.is::<GuardExec>() {
        // Its metrics are those of the operator below.
        plan.children().into_iter().for_each(|child| collect(child, depth, found, open));
        return;
    }
    found.push(Operator::of(plan.as_ref(), depth));
    if let Some(boundary) = plan.as_network_boundary() {
        if let Stage::Local(stage) = boundary.input_stage() {
            open.push(Open { number: stage.num, tasks: stage.tasks, plan: stage.plan.clone() });
        }
        return;
    }
    plan.children().into_iter().for_each(|child| collect(child, depth + 1, found, open));
}

fn task_of(metric: &Metric) -> Option<usize> {
    let label = metric.labels().iter().find(|label| label.name() == DISTRIBUTED_DATAFUSION_TASK_ID_LABEL);
    label.and_then(|label| label.value().parse().ok())
}
