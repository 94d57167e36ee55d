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
//! the build side in the plan, so that nothing is computed twice. Where the other side is the small one, as below an
//! anti join of its rows, the workers read that.

mod keys;
mod narrow;

pub(crate) use keys::{asks_keys, is_key, ready};

use crate::stages::StageReports;
use crate::{expected, from_datafusion, scan};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use async_trait::async_trait;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinSide, NullEquality, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, DynamicFilterTracking};
use datafusion::physical_expr::{Partitioning, PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
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
const LEAST_SENT_BYTES: u64 = 8 << 20;
/// Of a value of a column.
const LEAST_WIDTH: u64 = 8;

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
    read_by(plan, context, workers, Worth { here: MOST_BYTES, sent: LEAST_SENT_BYTES }).await
}

/// What makes reading beforehand worth its while.
#[derive(Clone, Copy, Debug)]
struct Worth {
    /// Bytes of files up to which an input is read here.
    here: u64,
    /// Bytes from which it is worth a run of the workers that fewer are sent.
    sent: u64,
}

async fn read_by(
    plan: Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    workers: Option<&dyn Workers>,
    worth: Worth,
) -> Result<Read> {
    let mut read = Read { plan, stages: Vec::new() };
    // Build sides that were asked for.
    let mut done: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
    while let Some(found) = candidate(&read.plan, workers.is_some(), worth, &done).map_err(from_datafusion)? {
        let Some(join) = found.join.downcast_ref::<HashJoinExec>() else { break };
        let input = input(join, found.side);
        let rows = match (found.by, workers) {
            (By::Workers, Some(workers)) => brought(input, context, workers, worth, &mut read.stages).await?,
            _ => Some(read_here(input, context).await.map_err(from_datafusion)?),
        };
        // Also one that is left where it is, as a few rows too many to travel may still be few keys.
        done.push(Arc::clone(input));
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

/// An input of a hash join that should be read beforehand.
struct Candidate {
    join: Arc<dyn ExecutionPlan>,
    side: JoinSide,
    by: By,
}

fn candidate(
    plan: &Arc<dyn ExecutionPlan>,
    has_workers: bool,
    worth: Worth,
    done: &[Arc<dyn ExecutionPlan>],
) -> DfResult<Option<Candidate>> {
    let mut found = None;
    plan.apply(|node| {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(TreeNodeRecursion::Continue) };
        for side in [JoinSide::Left, JoinSide::Right] {
            if done.iter().any(|before| Arc::ptr_eq(before, input(join, side))) {
                continue;
            }
            if let Some(by) = reader_of(join, side, has_workers, worth) {
                found = Some(Candidate { join: Arc::clone(node), side, by });
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

fn input(join: &HashJoinExec, side: JoinSide) -> &Arc<dyn ExecutionPlan> {
    if side == JoinSide::Right { join.right() } else { join.left() }
}

/// Who should read an input of a join before the plan runs; `None` where nobody should.
fn reader_of(join: &HashJoinExec, side: JoinSide, has_workers: bool, worth: Worth) -> Option<By> {
    let read = input(join, side);
    let suits = !keeps_unmatched(*join.join_type(), side.negate())
        && !join.null_aware
        && join.null_equality() == NullEquality::NullEqualsNothing
        && !in_memory(read)
        && !is_volatile(read);
    if !suits {
        return None;
    }
    if side == JoinSide::Left && bytes_to_read(read).is_some_and(|bytes| bytes <= worth.here) {
        return Some(By::Us);
    }
    let may_be_small = || is_likely_small(read) || may_prove_small(read, input(join, side.negate()));
    if !has_workers || !can_have_rows(join, side) || !leaves_rows_out(read) || !may_be_small() {
        return None;
    }
    let sent = targets(join, side).into_iter().filter(|(target, _)| target.is_sent);
    let bytes: u64 = sent.map(|(target, _)| bytes_of(&target)).sum();
    (bytes >= worth.sent).then_some(By::Workers)
}

/// Whether rows can take the place of a join's input. What comes out of one that all tasks have may not be its rows:
/// each of them would come out of every task.
fn can_have_rows(join: &HashJoinExec, side: JoinSide) -> bool {
    match join.partition_mode() {
        PartitionMode::CollectLeft => side == JoinSide::Left && gives_probed_rows_only(*join.join_type()),
        _ => {
            matches!(input(join, side).output_partitioning(), Partitioning::Hash(..))
                && is_divided_by_hash(join.left())
                && is_divided_by_hash(join.right())
        }
    }
}

/// Whether rows are in the partitions of their hashes. A scan may call its own division by files one by hash: it has
/// the number and the columns of another, but not its rows.
fn is_divided_by_hash(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<RepartitionExec>()
        || !(scan::divides_by_files(plan)
            || plan.children().into_iter().any(|child| !is_divided_by_hash(child)))
}

/// Whether keys of an input may be missing that the other side has. What a join or a limit above it fills in later
/// does not count.
fn leaves_rows_out(input: &Arc<dyn ExecutionPlan>) -> bool {
    let asks = |filter: &Arc<dyn PhysicalExpr>| {
        let is_dynamic =
            |part: &&Arc<dyn PhysicalExpr>| DynamicFilterTracking::classify(part).contains_dynamic_filter();
        split_conjunction(filter).iter().any(|part| !is_dynamic(part))
    };
    input
        .exists(|node| {
            let filter = scan::files_of(node).and_then(|scan| scan.file_source().filter());
            Ok(node.is::<FilterExec>()
                || node.fetch().is_some()
                || filter.is_some_and(|filter| asks(&filter)))
        })
        .unwrap_or(false)
}

/// The scans below the other side that the keys of one say something about, and which of the keys it is.
fn targets(join: &HashJoinExec, side: JoinSide) -> Vec<(Target, usize)> {
    let other = input(join, side.negate());
    let columns = join.on().iter().enumerate().filter_map(|(key, (left, right))| {
        let same =
            left.data_type(&join.left().schema()).ok()? == right.data_type(&join.right().schema()).ok()?;
        let of_other = if side == JoinSide::Right { left } else { right };
        let column = of_other.downcast_ref::<Column>().filter(|_| same)?;
        Some((key, column.index()))
    });
    columns
        .flat_map(|(key, column)| narrow::targets(other, column).into_iter().map(move |target| (target, key)))
        .collect()
}

/// Bytes that a scan gives if nothing is left out, by its columns' least width; by its share of the files where it
/// is not known how many rows there are.
fn bytes_of(target: &Target) -> u64 {
    let Some(scan) = scan::files_of(&target.scan) else { return 0 };
    let given = target.scan.schema().fields().len().max(1) as u64;
    match expected::rows(&target.scan) {
        Some(rows) => rows as u64 * given * LEAST_WIDTH,
        None => {
            let all = scan.file_source().table_schema().table_schema().fields().len().max(1) as u64;
            scan::file_bytes(scan) * given.min(all) / all
        }
    }
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
    leaves_out_groups || expected::rows(build).is_some_and(|rows| rows <= MOST_EXPECTED_ROWS)
}

/// Whether an input is worth a try though many rows are expected. A fifth of them is expected to pass a condition that
/// statistics say nothing about, and as a rule it is far fewer. Its rows come while files are read: that they are too
/// many is known before most of the work is done.
fn may_prove_small(read: &Arc<dyn ExecutionPlan>, other: &Arc<dyn ExecutionPlan>) -> bool {
    let is_fewer = match (expected::rows(read), expected::rows(other)) {
        (Some(rows), Some(others)) => rows < others,
        _ => false,
    };
    is_fewer && comes_row_by_row(read)
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
    if !passes_rows_on(plan) {
        return None;
    }
    plan.children().into_iter().map(bytes_to_read).sum()
}

/// Whether nothing between the files and the rows waits for all of what is below it, but the build sides of joins.
fn comes_row_by_row(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let reads = plan.is::<DataSourceExec>() && scan::files_of(plan).is_some();
    reads || (passes_rows_on(plan) && plan.children().into_iter().all(comes_row_by_row))
}

fn passes_rows_on(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<HashJoinExec>()
}

/// An input without what only brings its rows to the join.
fn without_exchange(input: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    if let Some(repartition) = input.downcast_ref::<RepartitionExec>() {
        return repartition.input();
    }
    match input.downcast_ref::<CoalescePartitionsExec>() {
        Some(coalesce) if coalesce.fetch().is_none() => coalesce.input(),
        _ => input,
    }
}

async fn read_here(input: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> DfResult<Vec<RecordBatch>> {
    // A copy, as some operators run only once.
    let input = scan::prepare(reset_plan_states(Arc::clone(input))?, context, scan::Rows::Stay)?;
    collect(input, Arc::clone(context)).await
}

/// The rows of an input from the workers; `None` where they are too many, or where its run fails: the plan's own
/// run fails in the same way then, and knows what to do about it.
async fn brought(
    input: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    workers: &dyn Workers,
    worth: Worth,
    stages: &mut Vec<StageReports>,
) -> Result<Option<Vec<RecordBatch>>> {
    let input = reset_plan_states(Arc::clone(without_exchange(input))).map_err(from_datafusion)?;
    let input = Box::pin(read_by(input, context, Some(workers), worth)).await?;
    stages.extend(input.stages);
    let (mut stream, reports) = match workers.run(input.plan).await {
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

/// The plan with the rows of a join's input, and with what their keys say in the scans of the other one.
fn placed(
    plan: &Arc<dyn ExecutionPlan>,
    found: &Candidate,
    join: &HashJoinExec,
    rows: &[RecordBatch],
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let (side, other) = (found.side, found.side.negate());
    let read = with_rows(join, side, rows, found.by)?.unwrap_or_else(|| Arc::clone(input(join, side)));
    let narrowed = narrow::with_conditions(Arc::clone(input(join, other)), &conditions(join, side, rows)?)?;
    let (left, right) = if side == JoinSide::Right { (narrowed, read) } else { (read, narrowed) };
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

fn conditions(
    join: &HashJoinExec,
    side: JoinSide,
    rows: &[RecordBatch],
) -> DfResult<Vec<(Target, Arc<dyn PhysicalExpr>)>> {
    let mut conditions = Vec::new();
    let targets = targets(join, side);
    for (number, (left, right)) in join.on().iter().enumerate() {
        let key = if side == JoinSide::Right { right } else { left };
        let mut of_key = targets.iter().filter(|(_, key)| *key == number).peekable();
        if of_key.peek().is_none() {
            continue;
        }
        let Some(keys) = Keys::of(rows, key)? else { continue };
        if keys.are_many() && !leaves_rows_out(input(join, side)) {
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

/// The rows of a join's input in its place; `None` where they are too many to travel, or to be read once more
/// than to be sent.
fn with_rows(
    join: &HashJoinExec,
    side: JoinSide,
    rows: &[RecordBatch],
    by: By,
) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    if !can_have_rows(join, side) {
        return Ok(None);
    }
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let before = input(join, side);
    let schema = before.schema();
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
        _ => Ok(Some(Arc::new(RepartitionExec::try_new(leaf, before.output_partitioning().clone())?))),
    }
}

#[cfg(test)]
mod tests;
