//! What the stages of a finished job did, for EXPLAIN ANALYZE. Each engine collects the metrics of its operators in
//! its own way; from there on all three are counted alike.

use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::metrics::{Metric, MetricValue, MetricsSet};
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::Result;

/// Asks for the stages once the job's stream has ended; before that they are incomplete.
pub type StageReports = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<StageReport>>> + Send + Sync>;

#[derive(Clone, Debug, PartialEq)]
pub struct StageReport {
    /// The engine's own name for it, such as `1`.
    pub stage: String,
    pub tasks: usize,
    /// Rows that the stage handed on.
    pub rows: u64,
    /// Bytes that the stage handed on, in memory; `None` where its last operator does not count them.
    pub bytes: Option<u64>,
    /// Bytes read from files.
    pub scanned: u64,
    pub spilled: u64,
    /// Time that operators worked, in the task that took longest; waiting is not in it.
    pub elapsed: Duration,
    /// The longest task's time over the median task's.
    pub skew: f64,
    /// The stage's operators with their metrics.
    pub plan: String,
}

/// An operator of a stage, with the metrics of all its tasks.
pub struct Operator {
    /// Distance from the stage's root.
    pub depth: usize,
    pub text: String,
    pub metrics: MetricsSet,
}

impl Operator {
    pub fn of(plan: &dyn ExecutionPlan, depth: usize) -> Self {
        let metrics = plan.metrics().unwrap_or_default();
        Self { depth, text: Line(plan).to_string(), metrics }
    }
}

/// One operator's line of a plan.
struct Line<'a>(&'a dyn ExecutionPlan);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_as(DisplayFormatType::Default, f)
    }
}

/// Counts a stage's operators, root first. `task_of` says to which task a metric belongs; metrics of no task count
/// for none.
pub fn count(
    stage: String,
    tasks: usize,
    operators: &[Operator],
    task_of: impl Fn(&Metric) -> Option<usize>,
) -> StageReport {
    let mut times: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut scanned, mut spilled) = (0, 0);
    let (mut rows, mut bytes) = (None, None);
    for operator in operators {
        let (mut own_rows, mut own_bytes) = (None, None);
        for metric in operator.metrics.iter() {
            let Some(task) = task_of(metric) else { continue };
            match metric.value() {
                MetricValue::ElapsedCompute(time) => *times.entry(task).or_default() += time.value() as u64,
                MetricValue::SpilledBytes(count) => spilled += count.value() as u64,
                MetricValue::Count { name, count } if name == "bytes_scanned" => {
                    scanned += count.value() as u64;
                }
                MetricValue::OutputRows(count) => *own_rows.get_or_insert(0) += count.value() as u64,
                MetricValue::OutputBytes(count) => *own_bytes.get_or_insert(0) += count.value() as u64,
                _ => {}
            }
        }
        // The root may be an exchange, which counts nothing: then it is the operator below.
        if rows.is_none() && own_rows.is_some() {
            (rows, bytes) = (own_rows, own_bytes);
        }
    }
    let mut times: Vec<u64> = times.into_values().collect();
    times.sort_unstable();
    let longest = times.last().copied().unwrap_or(0);
    let median = times.get(times.len() / 2).copied().unwrap_or(0);
    StageReport {
        stage,
        tasks,
        rows: rows.unwrap_or(0),
        bytes,
        scanned,
        spilled,
        elapsed: Duration::from_nanos(longest),
        skew: if median == 0 { 1.0 } else { longest as f64 / median as f64 },
        plan: text(operators, task_of),
    }
}

fn text(operators: &[Operator], task_of: impl Fn(&Metric) -> Option<usize>) -> String {
    let mut lines = Vec::new();
    for operator in operators {
        let mut metrics = MetricsSet::new();
        operator.metrics.iter().filter(|metric| task_of(metric).is_some()).for_each(|metric| {
            metrics.push(Arc::new(Metric::new(metric.value().clone(), metric.partition())));
        });
        let metrics = metrics.aggregate_by_name().sorted_for_display().timestamps_removed();
        lines.push(format!("{}{}, metrics=[{metrics}]", "  ".repeat(operator.depth), operator.text));
    }
    lines.join("\n")
}

/// All operators of a plan, root first.
pub fn operators(plan: &Arc<dyn ExecutionPlan>) -> Vec<Operator> {
    fn visit(plan: &Arc<dyn ExecutionPlan>, depth: usize, found: &mut Vec<Operator>) {
        found.push(Operator::of(plan.as_ref(), depth));
        plan.children().into_iter().for_each(|child| visit(child, depth + 1, found));
    }
    let mut found = Vec::new();
    visit(plan, 0, &mut found);
    found
}

/// The plan of one process is one stage, and its partitions are the tasks.
pub fn one_stage(plan: &Arc<dyn ExecutionPlan>) -> StageReport {
    let operators = operators(plan);
    // What no partition counts, such as a build side that all of them share, is the first one's.
    let task_of = |metric: &Metric| Some(metric.partition().unwrap_or(0));
    let metrics = operators.iter().flat_map(|operator| operator.metrics.iter());
    let tasks = metrics.filter_map(|metric| metric.partition()).max().map_or(1, |last| last + 1);
    count("1".to_owned(), tasks, &operators, task_of)
}

/// The whole plan with its metrics, as DataFusion shows it.
pub fn with_metrics(plan: &dyn ExecutionPlan, verbose: bool) -> String {
    DisplayableExecutionPlan::with_metrics(plan).indent(verbose).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::physical_plan::metrics::{Count, Time};

    fn metric(value: MetricValue, task: usize) -> Arc<Metric> {
        Arc::new(Metric::new(value, Some(task)))
    }

    fn counted(count: usize) -> Count {
        let counter = Count::new();
        counter.add(count);
        counter
    }

    #[test]
    fn the_slowest_task_and_the_skew_are_seen() {
        let exchange = Operator { depth: 0, text: "Exchange".to_owned(), metrics: MetricsSet::new() };
        let mut metrics = MetricsSet::new();
        for (task, millis) in [10, 20, 60].into_iter().enumerate() {
            let time = Time::new();
            time.add_duration(Duration::from_millis(millis));
            metrics.push(metric(MetricValue::ElapsedCompute(time), task));
            metrics.push(metric(MetricValue::OutputRows(counted(5)), task));
            metrics.push(metric(MetricValue::SpilledBytes(counted(100)), task));
        }
        let sort = Operator { depth: 1, text: "Sort".to_owned(), metrics };
        let report = count("2".to_owned(), 3, &[exchange, sort], Metric::partition);
        assert_eq!((report.rows, report.spilled, report.skew), (15, 300, 3.0));
        assert_eq!(report.elapsed, Duration::from_millis(60));
        assert!(report.plan.contains("  Sort, metrics=[output_rows=15"), "{}", report.plan);
        let none = count("2".to_owned(), 3, &[], Metric::partition);
        assert_eq!((none.rows, none.skew), (0, 1.0));
    }
}
