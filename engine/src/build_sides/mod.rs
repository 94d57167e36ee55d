//! Build sides of joins that are read before the plan is cut into stages.
//!
//! A hash join fills in a filter for the scans of its other side when it has read its build side. In one process
//! every scan below sees it. Between processes it stays within a stage: a table that is shuffled to a join is sent
//! whole, though the join drops most of its rows. So the build side is read first, where that is likely to pay:
//!
//! ```text
//!      HashJoin(s_nation = n_key)                        here, if there is little to read, or on the workers
//!       ├─ Filter(name = 'FRANCE') ─ Scan(nation)   ───▶ rows, keys {6}
//!       └─ Repartition ─ Scan(supplier)             ◀─── s_nation in {6}, a condition that travels with the scan
//! ```
//! The condition only says which rows no join will miss, so an answer never depends on it. The rows take the place of
//! the build side in the plan, so that nothing is computed twice.

mod keys;
mod narrow;

pub(crate) use keys::{asks_keys, is_key, ready};

use crate::stages::StageReports;
use crate::{from_datafusion, scan};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use async_trait::async_trait;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinSide, NullEquality, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_expr_common::physical_expr;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, ReplaceChildrenOptions, collect,
};
use futures::StreamExt;
use keys::Keys;
pub(crate) use narrow::gives_probed_rows_only;
use narrow::{Target, keeps_unmatched};
use std::sync::Arc;
use tidemill_core::Result;

/// Bytes of files that are read here rather than on the workers.
const MOST_BYTES: u64 = 2 << 20;
/// Rows, and bytes of them, that travel with each task of a stage instead of being sent by a stage of their own.
const MOST_ROWS: usize = 16_384;
pub(crate) const MOST_ROW_BYTES: usize = 256 << 10;
/// Bytes of rows that are brought here from the workers; a larger build side is left to its join.
const MOST_BROUGHT_BYTES: usize = 32 << 20;
/// Rows that a build side may be expected to have, to be brought here.
const MOST_EXPECTED_ROWS: usize = 1 << 20;
/// Bytes of columns that would be sent through a shuffle, and may become less, to be worth a run of its own.
const LEAST_SENT_BYTES: u64 = 16 << 20;

/// Runs a part of a plan on its engine.
#[async_trait]
pub trait Workers: Send + Sync {
    async fn run(&self, plan: Arc<dyn ExecutionPlan>) -> Result<(SendableRecordBatchStream, StageReports)>;
}

/// A plan whose small build sides were read.
pub struct Read {
    pub plan: Arc<dyn ExecutionPlan>,
    /// What the workers did for it.
    pub stages: Vec<StageReports>,
}

/// Reads build sides of `plan`: those of little to read here, and those that drop much of what would be sent
/// between the workers by `workers`, if there are any. Outer joins come first: their keys narrow what is below them.
pub async fn read(
    plan: Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    workers: Option<&dyn Workers>,
) -> Result<Read> {
    read_where(plan, context, workers, LEAST_SENT_BYTES).await
}

async fn read_where(
    plan: Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    workers: Option<&dyn Workers>,
    least_sent: u64,
) -> Result<Read> {
    // What is worth a run of the workers.
    let worth = workers.map(|_| least_sent);
    let mut read = Read { plan, stages: Vec::new() };
    // Build sides that were asked for.
    let mut done: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
    while let Some(found) = candidate(&read.plan, worth, &done).map_err(from_datafusion)? {
        let Some(join) = found.join.downcast_ref::<HashJoinExec>() else { break };
        let rows = match (found.by, workers) {
            (By::Workers, Some(workers)) => {
                brought(join, context, workers, least_sent, &mut read.stages).await?
            }
            _ => Some(read_here(join, context).await.map_err(from_datafusion)?),
        };
        // Also one that is left where it is, as a few rows too many to travel may still be few keys.
        done.push(Arc::clone(join.left()));
        if let Some(rows) = rows {
            read.plan = placed(&read.plan, &found, join, &rows).map_err(from_datafusion)?;
        }
    }
    Ok(read)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Us,
    Workers,
}

struct Candidate {
    join: Arc<dyn ExecutionPlan>,
    by: By,
}

fn candidate(
    plan: &Arc<dyn ExecutionPlan>,
    worth: Option<u64>,
    done: &[Arc<dyn ExecutionPlan>],
) -> DfResult<Option<Candidate>> {
    let mut found = None;
    plan.apply(|node| {
        let by = node
            .downcast_ref::<HashJoinExec>()
            .filter(|join| !done.iter().any(|build| Arc::ptr_eq(build, join.left())))
            .and_then(|join| reader_of(join, worth));
        Ok(match by {
            Some(by) => {
                found = Some(Candidate { join: Arc::clone(node), by });
                TreeNodeRecursion::Stop
            }
            None => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// Who should read the build side of a join before the plan runs; `None` where nobody should. For the workers it must
/// be worth so many bytes that would be sent.
fn reader_of(join: &HashJoinExec, worth: Option<u64>) -> Option<By> {
    let build = join.left();
    let suits = !keeps_unmatched(*join.join_type(), JoinSide::Right)
        && !join.null_aware
        && join.null_equality() == NullEquality::NullEqualsNothing
        && !in_memory(build)
        && !is_volatile(build);
    if !suits {
        return None;
    }
    if bytes_to_read(build).is_some_and(|bytes| bytes <= MOST_BYTES) {
        return Some(By::Us);
    }
    let worth = worth?;
    if !can_have_rows(join) || !leaves_rows_out(build) || !is_likely_small(build) {
        return None;
    }
    let sent = targets(join).into_iter().filter(|(target, _)| target.is_sent);
    let bytes: u64 = sent.map(|(target, _)| bytes_of(&target)).sum();
    (bytes >= worth).then_some(By::Workers)
}

/// Whether rows can take the place of a join's build side. What comes out of one that all tasks have may not be its
/// rows: each of them would come out of every task.
fn can_have_rows(join: &HashJoinExec) -> bool {
    match join.partition_mode() {
        PartitionMode::CollectLeft => gives_probed_rows_only(*join.join_type()),
        _ => matches!(join.left().output_partitioning(), Partitioning::Hash(..)),
    }
}

/// Whether keys of a build side may be missing that the other side has.
fn leaves_rows_out(build: &Arc<dyn ExecutionPlan>) -> bool {
    build
        .exists(|node| {
            let filtered = scan::files_of(node).is_some_and(|scan| scan.file_source().filter().is_some());
            Ok(filtered || node.is::<FilterExec>())
        })
        .unwrap_or(false)
}

/// The scans below the other side that the keys of a join say something about, and which of the keys it is.
fn targets(join: &HashJoinExec) -> Vec<(Target, usize)> {
    let keys = join.on().iter().enumerate();
    let columns = keys.filter_map(|(key, (left, right))| {
        let same =
            left.data_type(&join.left().schema()).ok()? == right.data_type(&join.right().schema()).ok()?;
        let column = right.downcast_ref::<Column>().filter(|_| same)?;
        Some((key, column.index()))
    });
    columns
        .flat_map(|(key, column)| {
            narrow::targets(join.right(), column).into_iter().map(move |target| (target, key))
        })
        .collect()
}

/// Bytes of the columns that a scan reads, by their share of the table's.
fn bytes_of(target: &Target) -> u64 {
    let Some(scan) = scan::files_of(&target.scan) else { return 0 };
    let all = scan.file_source().table_schema().table_schema().fields().len().max(1) as u64;
    let given = target.scan.schema().fields().len() as u64;
    scan::file_bytes(scan) * given.min(all) / all
}

/// Whether so few rows are expected that they can be brought here. Groups that are left out by what was computed of
/// them are expected to be many by no statistics, and are few as a rule.
fn is_likely_small(build: &Arc<dyn ExecutionPlan>) -> bool {
    let leaves_out_groups = build
        .exists(|node| {
            let filter = node.downcast_ref::<FilterExec>();
            Ok(filter.is_some_and(|filter| below_plain(filter.input()).is::<AggregateExec>()))
        })
        .unwrap_or(false);
    let expected = StatisticsContext::new().compute(build.as_ref(), &StatisticsArgs::new()).ok();
    let rows = expected.and_then(|expected| expected.num_rows.get_value().copied());
    leaves_out_groups || rows.is_some_and(|rows| rows <= MOST_EXPECTED_ROWS)
}

fn below_plain(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    match plan.children().as_slice() {
        [input] if plan.is::<ProjectionExec>() || plan.is::<CoalescePartitionsExec>() => below_plain(input),
        _ => plan,
    }
}

fn in_memory(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let leaf = match plan.downcast_ref::<RepartitionExec>() {
        Some(repartition) => repartition.input(),
        None => plan,
    };
    let source = leaf.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
    source.is_some_and(|source| source.is::<MemorySourceConfig>())
}

/// Whether a second run may give other rows, as with `random()`.
fn is_volatile(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.exists(|node| {
        let mut volatile = false;
        node.apply_expressions(&mut |part| {
            volatile |= physical_expr::is_volatile(part);
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(volatile)
    })
    .unwrap_or(true)
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
    if !plain {
        return None;
    }
    plan.children().into_iter().map(bytes_to_read).sum()
}

/// The build side without what only brings its rows to the join.
fn build_of(join: &HashJoinExec) -> &Arc<dyn ExecutionPlan> {
    let build = join.left();
    if let Some(repartition) = build.downcast_ref::<RepartitionExec>() {
        return repartition.input();
    }
    match build.downcast_ref::<CoalescePartitionsExec>() {
        Some(coalesce) if coalesce.fetch().is_none() => coalesce.input(),
        _ => build,
    }
}

async fn read_here(join: &HashJoinExec, context: &Arc<TaskContext>) -> DfResult<Vec<RecordBatch>> {
    // A copy, as some operators run only once.
    let build = scan::prepare(reset_plan_states(Arc::clone(join.left()))?, context, scan::Rows::Stay)?;
    collect(build, Arc::clone(context)).await
}

/// The rows of a build side from the workers; `None` where they are too many, or where its run fails: the plan's own
/// run fails in the same way then, and knows what to do about it.
async fn brought(
    join: &HashJoinExec,
    context: &Arc<TaskContext>,
    workers: &dyn Workers,
    least_sent: u64,
    stages: &mut Vec<StageReports>,
) -> Result<Option<Vec<RecordBatch>>> {
    let build = reset_plan_states(Arc::clone(build_of(join))).map_err(from_datafusion)?;
    let build = Box::pin(read_where(build, context, Some(workers), least_sent)).await?;
    stages.extend(build.stages);
    let (mut stream, reports) = match workers.run(build.plan).await {
        Ok(running) => running,
        Err(error) => {
            tracing::debug!(%error, "a build side was not read beforehand");
            return Ok(None);
        }
    };
    stages.push(reports);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await {
        match batch {
            Ok(batch) => {
                bytes += batch.get_array_memory_size();
                rows.push(batch);
            }
            Err(error) => {
                tracing::debug!(%error, "a build side was not read beforehand");
                return Ok(None);
            }
        }
        if bytes > MOST_BROUGHT_BYTES {
            return Ok(None);
        }
    }
    Ok(Some(rows))
}

/// The plan with the rows of a join's build side, and with what their keys say in the scans of the other side.
fn placed(
    plan: &Arc<dyn ExecutionPlan>,
    found: &Candidate,
    join: &HashJoinExec,
    rows: &[RecordBatch],
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let left = with_rows(join, rows, found.by)?.unwrap_or_else(|| Arc::clone(join.left()));
    let right = narrow::with_conditions(Arc::clone(join.right()), &conditions(join, rows)?)?;
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    let joined = Arc::clone(&found.join).replace_children(vec![left, right], options)?;
    let replaced = Arc::clone(plan).transform_down(|node| {
        Ok(match Arc::ptr_eq(&node, &found.join) {
            true => Transformed::new(Arc::clone(&joined), true, TreeNodeRecursion::Stop),
            false => Transformed::no(node),
        })
    })?;
    Ok(replaced.data)
}

fn conditions(join: &HashJoinExec, rows: &[RecordBatch]) -> DfResult<Vec<(Target, Arc<dyn PhysicalExpr>)>> {
    let mut conditions = Vec::new();
    let targets = targets(join);
    for (number, (of_build, _)) in join.on().iter().enumerate() {
        let mut of_key = targets.iter().filter(|(_, key)| *key == number).peekable();
        if of_key.peek().is_none() {
            continue;
        }
        let Some(keys) = Keys::of(rows, of_build)? else { continue };
        if keys.are_many() && !leaves_rows_out(join.left()) {
            continue;
        }
        for (target, _) in of_key {
            let Some(scan) = scan::files_of(&target.scan) else { continue };
            let column: Arc<dyn PhysicalExpr> = Arc::new(target.column.clone());
            let condition = keys.condition(&column, scan.file_source().table_schema().table_schema())?;
            conditions.push((target.clone(), condition));
        }
    }
    Ok(conditions)
}

/// The rows of a join's build side as its input; `None` where they are too many to travel, or to be read once more
/// than to be sent.
fn with_rows(join: &HashJoinExec, rows: &[RecordBatch], by: By) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if !can_have_rows(join) {
        return Ok(None);
    }
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let schema = join.left().schema();
    let rows = concat_batches(&schema, rows)?;
    let columns = rows.columns().iter().map(scan::owned).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    let rows = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?;
    let few = count <= MOST_ROWS && rows.get_array_memory_size() <= MOST_ROW_BYTES;
    if by == By::Us && !few {
        return Ok(None);
    }
    let leaf: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None)?;
    match join.partition_mode() {
        PartitionMode::CollectLeft => Ok(Some(leaf)),
        _ => Ok(Some(Arc::new(RepartitionExec::try_new(leaf, join.left().output_partitioning().clone())?))),
    }
}

#[cfg(test)]
mod tests;
