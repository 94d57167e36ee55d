//! How many tasks a stage gets, and which of them reads what.

use crate::exec::descriptors;
use crate::{scan, to_datafusion};
use async_trait::async_trait;
use datafusion::common::Result as DfResult;
use datafusion::datasource::physical_plan::{FileGroup, FileGroupPartitioner, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{Distribution, ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DesiredTaskCountHandler, DistributedLeafExec,
    RouteTasksEvent, RouteTasksEventResponse, RouteTasksHandler, ScaleUpLeafNodeEvent,
    ScaleUpLeafNodeEventResponse, ScaleUpLeafNodeHandler,
};
use std::sync::Arc;
use url::Url;

/// A stage of one task between others of one task is run by the coordinator itself; two tasks keep the work
/// on the workers, also when there is only one of them.
pub(super) const FEWEST_TASKS: usize = 2;

/// Bytes of files that are worth a partition.
const BYTES_PER_PARTITION: u64 = 2 << 20;

/// Says how many tasks a stage should have, by what it reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct TaskCounts {
    /// Of a stage that reads files.
    pub(super) fewest: usize,
}

#[async_trait]
impl DesiredTaskCountHandler for TaskCounts {
    async fn handle(
        &self,
        event: DesiredTaskCountEvent<'_>,
    ) -> Option<DfResult<DesiredTaskCountEventResponse>> {
        task_count(event.plan.as_ref(), self.fewest, event.session_config).map(Ok)
    }
}

fn task_count(
    plan: &dyn ExecutionPlan,
    fewest: usize,
    config: &SessionConfig,
) -> Option<DesiredTaskCountEventResponse> {
    // Cut beforehand for keyed state: bucket k is where task k / (K/T) is, so the count is fixed.
    if let Some(leaf) = plan.downcast_ref::<DistributedLeafExec>() {
        return Some(DesiredTaskCountEventResponse::maximum(leaf.variants().len()));
    }
    if let Some(partitions) = descriptors::partitions(plan) {
        return Some(DesiredTaskCountEventResponse::desired(partitions.len().max(FEWEST_TASKS)));
    }
    if relies_on_one_partition(plan) || limits_one_partition(plan) {
        return Some(DesiredTaskCountEventResponse::maximum(1));
    }
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        // A shuffle from several tasks interleaves their rows, but still promises the order of its input.
        // Range boundaries are not shuffled at all.
        let ordered = plan.output_ordering().is_some();
        return match repartition.partitioning() {
            Partitioning::Hash(..) if !ordered => None,
            Partitioning::RoundRobinBatch(_) => None,
            _ => Some(DesiredTaskCountEventResponse::maximum(1)),
        };
    }
    let scan = plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()?;
    let bytes = scan::file_bytes(scan);
    // Nothing to read would ask for no task.
    if bytes == 0 {
        return Some(DesiredTaskCountEventResponse::maximum(1));
    }
    let tasks = (bytes / BYTES_PER_PARTITION) as usize / config.target_partitions() + 1;
    Some(DesiredTaskCountEventResponse::desired(tasks.max(fewest)))
}

/// Whether an input has all rows, or all rows of a key, in one place only because it has one partition. With
/// several tasks it would have one in each, and a sort, a group or a join would be done in parts.
fn relies_on_one_partition(plan: &dyn ExecutionPlan) -> bool {
    // The planner broadcasts their first input to all tasks.
    let collects = plan.is::<CrossJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan
            .downcast_ref::<HashJoinExec>()
            .is_some_and(|join| *join.partition_mode() == PartitionMode::CollectLeft);
    let needs = plan.input_distribution_requirements().into_per_child();
    plan.children().into_iter().zip(needs).skip(usize::from(collects)).any(|(input, need)| {
        !matches!(need, Distribution::UnspecifiedDistribution)
            && input.output_partitioning().partition_count() == 1
            // That one is by the rows' hash, of which each task gets its own.
            && !matches!(input.output_partitioning(), Partitioning::Hash(..))
    })
}

/// Each of several tasks would hand on as many rows as all of them may.
fn limits_one_partition(plan: &dyn ExecutionPlan) -> bool {
    plan.fetch().is_some() && plan.output_partitioning().partition_count() == 1
}

/// Deals the descriptors out to the tasks of the stage.
pub(super) struct SplitDescriptors;

impl ScaleUpLeafNodeHandler for SplitDescriptors {
    fn handle(&self, event: ScaleUpLeafNodeEvent) -> Option<DfResult<ScaleUpLeafNodeEventResponse>> {
        let partitions = descriptors::partitions(event.plan.as_ref())?;
        let tasks = event.task_count;
        let each = partitions.len().div_ceil(tasks);
        let shares = (0..tasks).map(|task| {
            let mut share: Vec<_> = partitions.iter().skip(task).step_by(tasks).cloned().collect();
            share.resize(each, Vec::new());
            share
        });
        Some(cut_leaf(event.plan, shares).map(ScaleUpLeafNodeEventResponse::new))
    }
}

/// Deals files, or parts of them, out to the tasks of the stage. `datafusion-distributed` itself would cut files of
/// every format, and refuse a plan whose order leaves one task more files than another.
pub(super) struct SplitFiles;

impl ScaleUpLeafNodeHandler for SplitFiles {
    fn handle(&self, event: ScaleUpLeafNodeEvent) -> Option<DfResult<ScaleUpLeafNodeEventResponse>> {
        let scan = scan::files_of(event.plan)?;
        let tasks = event.task_count;
        if tasks < 2 {
            return Some(Ok(ScaleUpLeafNodeEventResponse::new(event.plan.clone())));
        }
        let mut groups = parts(scan, scan.file_groups.len() * tasks);
        groups.resize(groups.len().next_multiple_of(tasks), FileGroup::new(Vec::new()));
        let variants = (0..tasks).map(|task| {
            let mut share = scan.clone();
            share.file_groups = groups.iter().skip(task).step_by(tasks).cloned().collect();
            let share: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(share);
            share
        });
        let leaf = DistributedLeafExec::try_new(event.plan.clone(), variants);
        Some(leaf.map(|leaf| ScaleUpLeafNodeEventResponse::new(Arc::new(leaf))))
    }
}

/// Whether its files can be read from the middle on.
pub(super) fn can_be_cut(scan: &FileScanConfig) -> bool {
    scan.file_source().supports_repartitioning() && !scan.file_compression_type.is_compressed()
}

/// The files of a scan in so many groups, if they can be read from the middle on; else as they are.
fn parts(scan: &FileScanConfig, groups: usize) -> Vec<FileGroup> {
    let partitioner = FileGroupPartitioner::new()
        .with_target_partitions(groups)
        .with_repartition_file_min_size(0)
        .with_preserve_order_within_groups(!scan.output_ordering.is_empty());
    let parts = can_be_cut(scan).then(|| partitioner.repartition_file_groups(&scan.file_groups)).flatten();
    parts.unwrap_or_else(|| scan.file_groups.clone())
}

/// A leaf of which each task reads its share. All shares have the same number of partitions.
pub(super) fn cut_leaf(
    original: &Arc<dyn ExecutionPlan>,
    shares: impl Iterator<Item = Vec<Vec<arrow::array::RecordBatch>>>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let variants: Vec<_> =
        shares.map(|share| descriptors::leaf(&share).map_err(to_datafusion)).collect::<DfResult<_>>()?;
    Ok(Arc::new(DistributedLeafExec::try_new(original.clone(), variants)?))
}

/// Task t runs on worker t: the same one in each epoch while the members stay, so its cached state is of use,
/// and the same one in each stage, so that a part of the shuffle stays within a process.
pub(super) struct InOrder(pub(super) Vec<Url>);

impl RouteTasksHandler for InOrder {
    fn handle(&self, event: RouteTasksEvent) -> Option<DfResult<RouteTasksEventResponse>> {
        if event.task_count < FEWEST_TASKS {
            return None;
        }
        let urls = (0..event.task_count).map(|task| self.0[task % self.0.len()].clone()).collect();
        Some(Ok(RouteTasksEventResponse::new(urls)))
    }
}
