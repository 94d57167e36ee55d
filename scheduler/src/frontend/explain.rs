//! EXPLAIN: the plan and the engine, and with ANALYZE what each stage took.

use super::answers::{text, text_batch, text_schema};
use super::api::{Answer, AnswerKind};
use super::drive::{Launch, Try};
use super::query::{Planned, Runner};
use super::session::Session;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use futures::StreamExt;
use std::sync::Arc;
use std::time::Instant;
use tidemill_core::Result;
use tidemill_engine::stages::{StageReport, StageReports, with_metrics};
use tidemill_engine::{Engine, Execution, JobKind, JobSpec, from_datafusion, to_datafusion};
use tidemill_sql::statement::{Explain, ExplainFormat};

const COLUMNS: [&str; 2] = ["kind", "plan"];
/// What the job is called.
const TITLE: &str = "EXPLAIN ANALYZE";

impl Runner {
    pub(super) async fn explain(
        &self,
        session: &Session,
        plan: LogicalPlan,
        explain: &Explain,
    ) -> Result<Answer> {
        if explain.analyze {
            return self.analyze(session, plan, explain.verbose).await;
        }
        let mut rows = Vec::new();
        let optimized = session.state.optimize(&plan).map_err(from_datafusion)?;
        let Planned { plan, engine, reason } = self.plan(session, &plan).await?;
        rows.push(engine_row(&engine, &reason));
        let logical = match explain.format {
            ExplainFormat::Indent | ExplainFormat::Tree => optimized.display_indent().to_string(),
            ExplainFormat::PgJson => optimized.display_pg_json().to_string(),
            ExplainFormat::Graphviz => optimized.display_graphviz().to_string(),
        };
        rows.push(["logical plan".to_owned(), logical]);
        let prepared = engine.prepare(plan, session.state.task_ctx()).await?;
        let shown = displayable(prepared.as_ref());
        let physical = match explain.format {
            ExplainFormat::Tree => shown.tree_render().to_string(),
            _ => shown.indent(explain.verbose).to_string(),
        };
        rows.push(["physical plan".to_owned(), physical]);
        text(COLUMNS, &rows)
    }

    /// Runs the query as a job like any other, and gives what its stages took instead of its rows.
    async fn analyze(&self, session: &Session, plan: LogicalPlan, verbose: bool) -> Result<Answer> {
        let planned = self.plan(session, &plan).await?;
        let (engine, reason) = (Some(planned.engine.kind()), planned.reason.clone());
        let launch: Launch = Box::new(move |Try { planned, job, context, .. }| {
            Box::pin(async move {
                let row = engine_row(&planned.engine, &planned.reason);
                let job = JobSpec { id: job, kind: JobKind::Analyze, title: TITLE.to_owned() };
                // Build sides may be read before the plan itself begins.
                let began = Instant::now();
                let running = planned.engine.execute(job, planned.plan, context).await?;
                let (rows, plan, stages) = (running.stream, running.plan.clone(), running.stages.clone());
                let stream = futures::stream::once(async move {
                    let told = tell(row, began, rows, plan, stages, verbose).await.map_err(to_datafusion)?;
                    text_batch(&text_schema(&COLUMNS), &told).map_err(to_datafusion)
                });
                let stream = Box::pin(RecordBatchStreamAdapter::new(text_schema(&COLUMNS), stream));
                Ok(Execution { stream, ..running })
            })
        });
        let schema = text_schema(&COLUMNS);
        let driver = self.job(session, TITLE, plan, planned, launch);
        let (id, progress) = (driver.id(), driver.watcher());
        let stream = driver.stream(schema.clone());
        Ok(Answer { job: id, kind: AnswerKind::Rows, schema, stream, progress, engine, reason })
    }
}

fn engine_row(engine: &Arc<dyn Engine>, reason: &str) -> [String; 2] {
    ["engine".to_owned(), format!("{} ({reason})", engine.kind().as_str())]
}

/// Reads the rows to their end, and says what that took.
async fn tell(
    engine: [String; 2],
    began: Instant,
    mut rows: SendableRecordBatchStream,
    plan: Arc<dyn ExecutionPlan>,
    stages: StageReports,
    verbose: bool,
) -> Result<Vec<[String; 2]>> {
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch.map_err(from_datafusion)?.num_rows();
    }
    let took = began.elapsed();
    let stages = stages().await?;
    let mut told = vec![
        engine,
        ["rows".to_owned(), count.to_string()],
        ["elapsed".to_owned(), format!("{took:.1?}")],
        ["stages".to_owned(), table(&stages)],
    ];
    told.extend(stages.iter().map(|stage| [format!("stage {}", stage.stage), stage.plan.clone()]));
    if verbose {
        told.push(["plan with metrics".to_owned(), with_metrics(plan.as_ref(), true)]);
    }
    Ok(told)
}

/// One line a stage, in columns.
fn table(stages: &[StageReport]) -> String {
    let mut lines =
        vec![["stage", "tasks", "rows", "bytes", "read", "spilled", "elapsed", "skew"].map(str::to_owned)];
    for stage in stages {
        lines.push([
            stage.stage.clone(),
            stage.tasks.to_string(),
            stage.rows.to_string(),
            stage.bytes.map_or_else(|| "-".to_owned(), size),
            size(stage.scanned),
            size(stage.spilled),
            format!("{:.1?}", stage.elapsed),
            format!("{:.1}", stage.skew),
        ]);
    }
    let widths: [usize; 8] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    });
    let line = |cells: &[String; 8]| {
        let cells: Vec<String> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        cells.join("  ")
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        1..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn stages_stand_in_columns() {
        let stage = |name: &str, bytes| StageReport {
            stage: name.to_owned(),
            tasks: 2,
            rows: 1500,
            bytes,
            scanned: 3 << 20,
            spilled: 0,
            elapsed: Duration::from_millis(12),
            skew: 1.5,
            plan: String::new(),
        };
        let shown = table(&[stage("1", Some(2048)), stage("12", None)]);
        assert_eq!(
            shown.lines().collect::<Vec<_>>(),
            [
                "stage  tasks  rows    bytes     read  spilled  elapsed  skew",
                "    1      2  1500  2.0 KiB  3.0 MiB        0   12.0ms   1.5",
                "   12      2  1500        -  3.0 MiB        0   12.0ms   1.5",
            ]
        );
    }
}
