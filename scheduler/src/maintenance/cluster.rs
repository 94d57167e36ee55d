//! `OPTIMIZE … ZORDER BY`: rows that are near in several columns come into the same files.
//!
//! ```text
//! sample of the columns ─▶ quantiles ─▶ bounds
//! all rows ─▶ zorder(columns, bounds) ─▶ shuffle by range of that number ─▶ sort (spills) ─▶ WriteExec
//! ```
//! One partition of the table after the other, each committed by itself. The ranges are about as many as files
//! will be, so that tasks sort and write in parallel and each file still holds neighbours only.

use super::bins::Bin;
use super::compact::Compact;
use super::report::Report;
use super::{Optimizer, TargetSize};
use crate::engines::EngineChoice;
use crate::frontend::{Planned, new_job, plan_for};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use datafusion::datasource::provider_as_source;
use datafusion::functions::math::expr_fn::random;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ident, lit};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, Partitioning, PhysicalSortExpr};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::zorder::{MOST_COLUMNS, bounds, most_bounds, numbers, zorder};
use tidemill_engine::{Change, Engine, JobKind, JobSpec, LakeFile, LakeSnapshot, Reads, from_datafusion};
use url::Url;

/// Rows of the sample: enough for quantiles that are right to about a hundredth.
const SAMPLE_ROWS: f64 = 10_000.0;
const NUMBER: &str = "__zorder";
const RANGE: &str = "__zrange";

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) what: Compact,
    pub(crate) columns: Vec<String>,
    pub(crate) engine: EngineChoice,
}

impl Optimizer {
    pub(crate) async fn cluster(&self, location: &Url, cluster: &Cluster) -> Result<Report> {
        let snapshot = self.lake.snapshot(location).await?;
        check(snapshot.as_ref(), &cluster.columns)?;
        let files = snapshot.files(&self.state, &cluster.what.filters)?;
        let target = TargetSize::of(&snapshot.properties()).unwrap_or(self.target);
        let mut report = Report::default();
        report.consider(&files);
        for part in partitions(files) {
            let done =
                self.part(location, snapshot.as_ref(), &part, target, cluster).await.map_err(|error| {
                    match error.code {
                    Code::Conflict => error.hint(
                        "run it again when the statement that changed these files is done; partitions before \
                         this one are clustered",
                    ),
                    _ => error,
                }
                })?;
            report.add(done);
        }
        Ok(report)
    }

    async fn part(
        &self,
        location: &Url,
        snapshot: &dyn LakeSnapshot,
        part: &Bin,
        target: TargetSize,
        cluster: &Cluster,
    ) -> Result<Report> {
        let scan = LogicalPlanBuilder::scan(
            "files",
            provider_as_source(snapshot.table(Some(&part.files), None)?),
            None,
        )
        .and_then(|plan| plan.build())
        .map_err(from_datafusion)?;
        let rows = part.rows.map_or(SAMPLE_ROWS * 100.0, |rows| rows as f64);
        let sample = self.sample(&scan, cluster, rows).await?;
        let title = format!("OPTIMIZE {location} ZORDER BY ({})", cluster.columns.join(", "));
        let ranges = usize::try_from(part.bytes.div_ceil(target.0)).unwrap_or(usize::MAX);
        let (plan, engine) = self.plan(scan, &sample, ranges, cluster).await?;
        let written = self.write(location, engine, plan, target, title).await?;
        let count: u64 = written.iter().map(|written| written.rows).sum();
        if part.rows.is_some_and(|rows| rows != count) {
            return Err(Error::internal(format!(
                "clustering read {:?} rows and wrote {count}; nothing was committed",
                part.rows
            )));
        }
        let done = Report::of_round(snapshot, &self.state, std::slice::from_ref(part), &written)?;
        let mut change = Change::new("OPTIMIZE");
        change.parameters = cluster.what.parameters();
        let columns = serde_json::to_string(&cluster.columns)?;
        change.parameters.insert("zOrderBy".to_owned(), columns);
        change.metrics = done.metrics();
        change.removes.clone_from(&part.files);
        change.adds = written;
        change.reads = Reads::Removed;
        change.data_change = false;
        snapshot.commit(change).await?;
        Ok(done)
    }

    /// Some rows of the columns, evenly from all over the files.
    async fn sample(&self, scan: &LogicalPlan, cluster: &Cluster, rows: f64) -> Result<Vec<ArrayRef>> {
        let columns: Vec<Expr> = cluster.columns.iter().map(ident).collect();
        let mut plan = LogicalPlanBuilder::from(scan.clone()).project(columns).map_err(from_datafusion)?;
        if rows > SAMPLE_ROWS {
            plan = plan.filter(random().lt(lit(SAMPLE_ROWS / rows))).map_err(from_datafusion)?;
        }
        let plan = plan.build().map_err(from_datafusion)?;
        let Planned { plan, engine, .. } =
            plan_for(&self.engines, cluster.engine, &self.state, &plan).await?;
        let schema = plan.schema();
        let job = JobSpec { id: new_job(), kind: JobKind::Query, title: "a sample".to_owned() };
        let running = engine.execute(job, plan, self.context.clone()).await?;
        let batches: Vec<RecordBatch> = running.stream.try_collect().await.map_err(from_datafusion)?;
        Ok(concat_batches(&schema, &batches)?.columns().to_vec())
    }

    async fn plan(
        &self,
        scan: LogicalPlan,
        sample: &[ArrayRef],
        ranges: usize,
        cluster: &Cluster,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<dyn Engine>)> {
        let function = zorder();
        let most = most_bounds(cluster.columns.len());
        let mut arguments = Vec::new();
        let mut of_sample = Vec::new();
        for (name, values) in cluster.columns.iter().zip(sample) {
            let bounds = bounds(values, most).map_err(from_datafusion)?;
            arguments.extend([ident(name), lit(bounds.clone())]);
            of_sample.push((values.clone(), bounds));
        }
        let width = scan.schema().fields().len();
        let number = function.call(arguments);
        let numbers = numbers(&of_sample).map_err(from_datafusion)?;
        let range = function.call(vec![
            ident(NUMBER),
            lit(bounds(&numbers, ranges.saturating_sub(1)).map_err(from_datafusion)?),
        ]);
        let all: Vec<Expr> = scan.schema().columns().into_iter().map(Expr::Column).collect();
        let plan = LogicalPlanBuilder::from(scan)
            .project(all.iter().cloned().chain([number.alias(NUMBER)]))
            .and_then(|plan| {
                let all = plan.schema().columns().into_iter().map(Expr::Column);
                plan.project(all.chain([range.alias(RANGE)]).collect::<Vec<_>>())
            })
            .and_then(|plan| plan.build())
            .map_err(from_datafusion)?;
        let Planned { plan, engine, .. } =
            plan_for(&self.engines, cluster.engine, &self.state, &plan).await?;
        let parallel = self.state.config().target_partitions().min(ranges);
        Ok((sorted(plan, width, parallel).map_err(from_datafusion)?, engine))
    }
}

/// Rows with their number at `width` and their range behind it: shuffled, sorted, and without the two.
fn sorted(
    plan: Arc<dyn ExecutionPlan>,
    width: usize,
    parallel: usize,
) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let number: Arc<dyn PhysicalExpr> = Arc::new(Column::new(NUMBER, width));
    let range: Arc<dyn PhysicalExpr> = Arc::new(Column::new(RANGE, width + 1));
    let shuffled =
        Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(vec![range], parallel.max(1)))?);
    let order = LexOrdering::from([PhysicalSortExpr::new_default(number)]);
    let sorted = Arc::new(SortExec::new(order, shuffled).with_preserve_partitioning(true));
    let schema = sorted.schema();
    let kept = schema.fields().iter().enumerate().take(width).map(|(index, field)| {
        (Arc::new(Column::new(field.name(), index)) as Arc<dyn PhysicalExpr>, field.name().clone())
    });
    Ok(Arc::new(ProjectionExec::try_new(kept.collect::<Vec<_>>(), sorted)?))
}

fn check(snapshot: &dyn LakeSnapshot, columns: &[String]) -> Result<()> {
    let (schema, partitions) = (snapshot.schema(), snapshot.partition_by());
    if columns.len() > MOST_COLUMNS {
        return Err(Error::new(Code::InvalidStatement, format!("ZORDER BY {} columns", columns.len()))
            .hint(format!("at most {MOST_COLUMNS}; more than about four have little effect")));
    }
    for name in columns {
        let Ok(field) = schema.field_with_name(name) else {
            let known = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::new(Code::UnknownColumn, format!("ZORDER BY: no column `{name}`"))
                .suggest(name, known));
        };
        if partitions.contains(name) {
            let message = format!("ZORDER BY `{name}`, which the table is partitioned by");
            return Err(Error::new(Code::InvalidStatement, message)
                .hint("its values are apart already; name other columns"));
        }
        if field.data_type().is_nested() {
            let message = format!("ZORDER BY `{name}`, a column of type {}", field.data_type());
            return Err(Error::new(Code::Unsupported, message).hint("name a column without parts"));
        }
    }
    Ok(())
}

/// The files of each partition of the table.
fn partitions(files: Vec<LakeFile>) -> Vec<Bin> {
    let mut parts: BTreeMap<String, Bin> = BTreeMap::new();
    for file in files {
        let part = parts.entry(format!("{:?}", file.partition)).or_insert_with(|| Bin {
            files: Vec::new(),
            bytes: 0,
            rows: Some(0),
            partition: file.partition.clone(),
        });
        let rows = if file.has_deleted_rows { None } else { file.rows };
        part.files.push(file.number);
        part.bytes += file.bytes;
        part.rows = part.rows.zip(rows).map(|(sum, rows)| sum + rows);
    }
    parts.into_values().collect()
}
