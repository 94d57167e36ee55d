//! Keys of small build sides, known before a plan is cut into stages.
//!
//! A hash join fills in a filter for the scans of its other side when it has read its build side. In one process
//! every scan below sees it. Between processes it stays within a stage: `supplier ⋈ nation` filters suppliers where
//! both are read together, but a supplier that is sent to another stage first is sent whole.
//!
//! ```text
//!      HashJoin(nation.key = supplier.nation)            nation has 25 rows: read here, before anything runs
//!       ├─ Filter(name = 'FRANCE') ─ Scan(nation)   ───▶ keys {6}
//!       └─ Broadcast ─ Scan(supplier, filter f)     ◀─── f := nation = 6, and travels with the plan
//! ```
//! Such a filter only says which rows no join will miss, so an answer never depends on it. A build side of few rows is
//! there already when this is done: these rows take its place in the plan, so that no stage reads and sends it again.

use crate::{from_datafusion, scan};
use arrow::array::{Array, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result as DfResult, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{DynamicFilterPhysicalExpr, Literal, binary, in_list, lit};
use datafusion::physical_expr_common::physical_expr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions, collect};
use std::collections::HashSet;
use std::sync::Arc;
use tidemill_core::Result;

/// Bytes of files that are read twice, here and by the stage of the join, to save others from reading more.
const MOST_BYTES: u64 = 2 << 20;
/// Keys that travel with each task of a scan. A year has fewer days.
const MOST_KEYS: usize = 512;
/// Rows, and bytes of them, that travel with each task of a stage instead of being sent by a stage of their own.
const MOST_ROWS: usize = 16_384;
const MOST_ROW_BYTES: usize = 256 << 10;

/// The plan with the filters of joins whose build sides are small in its scans. Outer joins come first: their
/// filters are below the others.
pub async fn fill_in(
    plan: Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let joins = small_joins(&plan).map_err(from_datafusion)?;
    let mut read = Vec::new();
    for node in joins {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else { continue };
        let rows = build_rows(join, context).await.map_err(from_datafusion)?;
        fill_in_one(join, &rows).map_err(from_datafusion)?;
        if let Some(leaf) = leaf_of(join, &rows).map_err(from_datafusion)? {
            read.push(BuildRows { join: Arc::clone(&node), leaf });
        }
    }
    with_rows(plan, &read).and_then(settled).map_err(from_datafusion)
}

struct BuildRows {
    join: Arc<dyn ExecutionPlan>,
    /// The rows of its build side.
    leaf: Arc<dyn ExecutionPlan>,
}

/// The rows of a join's build side as a leaf of the plan; `None` where they are too many, or where the join gives rows
/// of its build side, which only one task may do.
fn leaf_of(join: &HashJoinExec, rows: &[RecordBatch]) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    if *join.partition_mode() != PartitionMode::CollectLeft
        || !gives_probed_rows_only(*join.join_type())
        || count > MOST_ROWS
    {
        return Ok(None);
    }
    let schema = join.left().schema();
    let rows = concat_batches(&schema, rows)?;
    let columns = rows.columns().iter().map(scan::owned).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let rows = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
    if rows.get_array_memory_size() > MOST_ROW_BYTES {
        return Ok(None);
    }
    let leaf: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None)?;
    Ok(Some(leaf))
}

/// Whether no row comes from the build side alone, so that several tasks can have all of it.
pub(crate) fn gives_probed_rows_only(join: JoinType) -> bool {
    matches!(
        join,
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
    )
}

/// The plan with rows that were read as the build sides of their joins.
fn with_rows(plan: Arc<dyn ExecutionPlan>, read: &[BuildRows]) -> DfResult<Arc<dyn ExecutionPlan>> {
    let replaced = plan.transform_down(|node| {
        let Some(rows) = read.iter().find(|rows| Arc::ptr_eq(&rows.join, &node)) else {
            return Ok(Transformed::no(node));
        };
        let children =
            [Arc::clone(&rows.leaf)].into_iter().chain(node.children().into_iter().skip(1).cloned());
        let children = children.collect();
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(node.replace_children(children, options)?))
    })?;
    Ok(replaced.data)
}

/// The plan whose scans have what is known instead of what a join will fill in. Such a filter cannot travel: its
/// columns are those of the join, and are looked for in the schema of the scan.
fn settled(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let settled = plan.transform_up(|node| {
        let Some(scan) = scan::files_of(&node) else { return Ok(Transformed::no(node)) };
        let source = scan.file_source().downcast_ref::<ParquetSource>();
        let Some((source, filter)) = source.zip(scan.file_source().filter()) else {
            return Ok(Transformed::no(node));
        };
        let filter = filter.transform_up(|part| {
            let Some(filter) = part.downcast_ref::<DynamicFilterPhysicalExpr>() else {
                return Ok(Transformed::no(part));
            };
            let known = filter.current()?;
            Ok(if known.is::<Literal>() { Transformed::no(part) } else { Transformed::yes(known) })
        })?;
        if !filter.transformed {
            return Ok(Transformed::no(node));
        }
        let source = Arc::new(source.with_predicate(filter.data));
        let scan = FileScanConfigBuilder::from(scan.clone()).with_source(source).build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
        Ok(Transformed::yes(scan))
    })?;
    Ok(settled.data)
}

fn small_joins(plan: &Arc<dyn ExecutionPlan>) -> DfResult<Vec<Arc<dyn ExecutionPlan>>> {
    let mut joins = Vec::new();
    plan.apply(|node| {
        let suits = node.downcast_ref::<HashJoinExec>().is_some_and(|join| {
            filter_of(join).is_some()
                && join.null_equality() == NullEquality::NullEqualsNothing
                && bytes_to_read(join.left()).is_some_and(|bytes| bytes <= MOST_BYTES)
        });
        if suits {
            joins.push(Arc::clone(node));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(joins)
}

/// What the join fills in when it runs.
fn filter_of(join: &HashJoinExec) -> Option<Arc<dyn PhysicalExpr>> {
    join.dynamic_expressions_produced().into_iter().find(|filter| filter.is::<DynamicFilterPhysicalExpr>())
}

/// Whether a second run may give other rows, as with `random()`.
fn is_volatile(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut volatile = false;
    let walked = plan.apply_expressions(&mut |part| {
        volatile |= physical_expr::is_volatile(part);
        Ok(TreeNodeRecursion::Continue)
    });
    volatile || walked.is_err()
}

/// `None` when it does more than to read files and to leave some of their rows out.
fn bytes_to_read(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    if plan.is::<DataSourceExec>() {
        return scan::files_of(plan).map(scan::file_bytes);
    }
    let plain = plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<HashJoinExec>();
    if !plain || is_volatile(plan) {
        return None;
    }
    plan.children().into_iter().map(bytes_to_read).sum()
}

async fn build_rows(join: &HashJoinExec, context: &Arc<TaskContext>) -> DfResult<Vec<RecordBatch>> {
    // A copy, as some operators run only once.
    let build = scan::prepare(reset_plan_states(Arc::clone(join.left()))?, context, scan::Rows::Stay)?;
    collect(build, Arc::clone(context)).await
}

fn fill_in_one(join: &HashJoinExec, rows: &[RecordBatch]) -> DfResult<()> {
    let Some(filter) = filter_of(join) else { return Ok(()) };
    let Some(filter) = filter.downcast_ref::<DynamicFilterPhysicalExpr>() else { return Ok(()) };
    let mut conditions = Vec::new();
    for (of_build, of_probe) in join.on() {
        conditions.extend(condition(rows, of_build, of_probe, join)?);
    }
    let all = conditions
        .into_iter()
        .map(Ok)
        .reduce(|left, right| binary(left?, Operator::And, right?, join.right().schema().as_ref()));
    match all {
        Some(all) => filter.update(all?),
        None => Ok(()),
    }
}

/// What the other side must be to have a partner; `None` where there are too many keys to tell, or none: such a join
/// is over soon.
fn condition(
    rows: &[RecordBatch],
    of_build: &Arc<dyn PhysicalExpr>,
    of_probe: &Arc<dyn PhysicalExpr>,
    join: &HashJoinExec,
) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
    let schema = join.right().schema();
    if of_build.data_type(&join.left().schema())? != of_probe.data_type(&schema)? {
        return Ok(None);
    }
    let mut keys: HashSet<ScalarValue> = HashSet::new();
    for batch in rows {
        let column = of_build.evaluate(batch)?.into_array(batch.num_rows())?;
        for row in 0..column.len() {
            let key = ScalarValue::try_from_array(&column, row)?;
            if !key.is_null() {
                keys.insert(key);
            }
        }
        if keys.len() > MOST_KEYS {
            return Ok(None);
        }
    }
    let least = keys.iter().reduce(|least, key| if key < least { key } else { least }).cloned();
    let greatest = keys.iter().reduce(|greatest, key| if key > greatest { key } else { greatest }).cloned();
    let (Some(least), Some(greatest)) = (least, greatest) else { return Ok(None) };
    let keys = keys.into_iter().map(lit).collect();
    let one_of = in_list(Arc::clone(of_probe), keys, &false, &schema)?;
    // Statistics are compared with the bounds.
    let from = binary(Arc::clone(of_probe), Operator::GtEq, lit(least), &schema)?;
    let to = binary(Arc::clone(of_probe), Operator::LtEq, lit(greatest), &schema)?;
    let within = binary(from, Operator::And, to, &schema)?;
    Ok(Some(binary(within, Operator::And, one_of, &schema)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Services, session};
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionContext;
    use tidemill_core::ConnectorRegistry;
    use tidemill_core::config::Config;

    async fn context(folder: &std::path::Path) -> SessionContext {
        let services = Services::new(Config::default(), ConnectorRegistry::default());
        let runtime = session::runtime_env(&services.config).unwrap();
        let context = SessionContext::new_with_state(session::session_state(&services, runtime).build());
        for (name, query) in [
            (
                "region",
                "SELECT value AS r_key, concat('region ', value) AS r_name FROM generate_series(0, 4)",
            ),
            ("nation", "SELECT value AS n_key, value % 5 AS n_region FROM generate_series(0, 24)"),
            ("supplier", "SELECT value AS s_key, value % 25 AS s_nation FROM generate_series(0, 9999)"),
        ] {
            let file = folder.join(format!("{name}.parquet"));
            for sql in [
                format!("COPY ({query}) TO '{}'", file.display()),
                format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}'", file.display()),
            ] {
                context.sql(&sql).await.unwrap().collect().await.unwrap();
            }
        }
        context
    }

    #[tokio::test]
    async fn scans_know_the_keys_of_small_build_sides_before_they_run() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path()).await;
        let sql = "SELECT count(*) FROM supplier, nation, region \
                   WHERE s_nation = n_key AND n_region = r_key AND r_name = 'region 3'";
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let plan = fill_in(plan, &context.task_ctx()).await.unwrap();
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        let filter_of = |table: &str| shown.lines().find(|line| line.contains(table)).unwrap().to_owned();
        // Few rows are in the plan themselves.
        assert!(!shown.contains("nation.parquet") && shown.contains("partition_sizes=[1]"), "{shown}");
        assert!(filter_of("supplier.parquet").contains("s_nation@1 >= 3 AND s_nation@1 <= 23"), "{shown}");
        // The plan itself has not been run.
        let rows = collect(plan, context.task_ctx()).await.unwrap();
        assert_eq!(rows[0].column(0).as_ref(), &arrow::array::Int64Array::from(vec![2000]));
    }

    #[tokio::test]
    async fn no_keys_and_many_keys_are_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path()).await;
        for (sql, expected) in [
            ("SELECT count(*) FROM supplier JOIN nation ON s_nation = n_key WHERE n_region = 9", "[ empty ]"),
            ("SELECT count(*) FROM supplier a JOIN supplier b ON a.s_key = b.s_key", "[ empty ]"),
        ] {
            let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let plan = fill_in(plan, &context.task_ctx()).await.unwrap();
            let shown = displayable(plan.as_ref()).indent(false).to_string();
            assert!(shown.contains(expected), "{shown}");
        }
    }
}
