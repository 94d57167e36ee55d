//! EXPLAIN: the plan and the engine, and with ANALYZE what each stage took.

use super::answers::{new_job, text};
use super::api::Answer;
use super::cost;
use super::query::{Planned, Runner, plan_for};
use super::session::Session;
use crate::admission::Request;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::displayable;
use futures::StreamExt;
use std::time::Instant;
use tidemill_core::Result;
use tidemill_engine::stages::{StageReport, with_metrics};
use tidemill_engine::{JobKind, JobSpec, from_datafusion};
use tidemill_sql::statement::{Explain, ExplainFormat};

impl Runner {
    pub(super) async fn explain(
        &self,
        session: &Session,
        plan: LogicalPlan,
        explain: &Explain,
    ) -> Result<Answer> {
        let mut rows = Vec::new();
        let optimized = session.state.optimize(&plan).map_err(from_datafusion)?;
        let Planned { plan, engine, reason } =
            plan_for(&self.engines, session.engine, &session.state, &plan).await?;
        rows.push(["engine".to_owned(), format!("{} ({reason})", engine.kind().as_str())]);
        let context = session.state.task_ctx();
        if explain.analyze {
            let lane = cost::of(&plan, self.heavy_from).lane;
            let (user, priority) = (session.user.clone(), session.limits.priority);
            let _permit = self.gate.enter(&Request { user, lane, priority, again: false }).await?;
            let job = JobSpec { id: new_job(), kind: JobKind::Analyze, title: "EXPLAIN ANALYZE".to_owned() };
            let began = Instant::now();
            let mut running = engine.execute(job, plan, context).await?;
            let mut count = 0;
            while let Some(batch) = running.stream.next().await {
                count += batch.map_err(from_datafusion)?.num_rows();
            }
            let took = began.elapsed();
            let stages = (running.stages)().await?;
            rows.push(["rows".to_owned(), count.to_string()]);
            rows.push(["elapsed".to_owned(), format!("{took:.1?}")]);
            rows.push(["stages".to_owned(), table(&stages)]);
            for stage in &stages {
                rows.push([format!("stage {}", stage.stage), stage.plan.clone()]);
            }
            if explain.verbose {
                rows.push(["plan with metrics".to_owned(), with_metrics(running.plan.as_ref(), true)]);
            }
            return text(["kind", "plan"], &rows);
        }
        let logical = match explain.format {
            ExplainFormat::Indent | ExplainFormat::Tree => optimized.display_indent().to_string(),
            ExplainFormat::PgJson => optimized.display_pg_json().to_string(),
            ExplainFormat::Graphviz => optimized.display_graphviz().to_string(),
        };
        rows.push(["logical plan".to_owned(), logical]);
        let prepared = engine.prepare(plan, context).await?;
        let shown = displayable(prepared.as_ref());
        let physical = match explain.format {
            ExplainFormat::Tree => shown.tree_render().to_string(),
            _ => shown.indent(explain.verbose).to_string(),
        };
        rows.push(["physical plan".to_owned(), physical]);
        text(["kind", "plan"], &rows)
    }
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
