//! The metrics of a job that Ballista has finished, by stage and task.

use super::Server;
use ballista_core::JobId;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpc;
use ballista_core::serde::protobuf::{GetJobMetricsParams, OperatorMetricsSet};
use datafusion::physical_plan::metrics::{Metric, MetricsSet};
use tidemill_core::{Error, Result};
use tidemill_engine::stages::{Operator, StageReport, count};
use tonic::Request;

/// Ballista counts by partitions of a stage; a task may run several.
pub(super) async fn stages(server: &Server, job: &JobId) -> Result<Vec<StageReport>> {
    let failed = |error: String| Error::internal(format!("metrics of the staged job {job}: {error}"));
    let request = Request::new(GetJobMetricsParams { job_id: job.to_string() });
    let answer = server.get_job_metrics(request).await.map_err(|error| failed(error.to_string()))?;
    let mut reports = Vec::new();
    for stage in answer.into_inner().stages {
        let mut operators = Vec::new();
        for operator in stage.operators {
            let metrics: MetricsSet = OperatorMetricsSet { metrics: operator.metrics }
                .try_into()
                .map_err(|error: ballista_core::error::BallistaError| failed(error.to_string()))?;
            operators.push(Operator {
                depth: operator.depth as usize,
                text: operator.operator_desc,
                metrics,
            });
        }
        let task_of = |metric: &Metric| Some(metric.partition().unwrap_or(0));
        reports.push(count(stage.stage_id.to_string(), stage.partitions as usize, &operators, task_of));
    }
    Ok(reports)
}

/// Stands for stages whose metrics cannot be had; the rows were right all the same.
pub(super) fn unknown(error: &Error) -> StageReport {
    StageReport { plan: error.to_string(), ..count("?".to_owned(), 0, &[], |_| None) }
}
