//! As many partitions for each task as its worker has cores.
//!
//! A plan comes with as many partitions as the scheduler's machine has cores, and each of T tasks would have so many:
//! shuffles go to T times as many, each with its own batches and hash tables, which a worker of fewer cores works off
//! one after the other.

use super::leaves::can_be_cut;
use crate::build_sides::gives_probed_rows_only;
use crate::exec::descriptors;
use crate::scan::files_of;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileGroupPartitioner, FileScanConfig, FileScanConfigBuilder,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use std::sync::Arc;

/// The plan with `cores` partitions instead of more; `None` where they are not ours to choose.
pub(super) fn fewer(plan: &Arc<dyn ExecutionPlan>, cores: usize) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let fixed = plan.exists(|node| Ok(is_fixed(node)))?;
    if fixed {
        return Ok(None);
    }
    // While it can be seen which inputs have several partitions.
    let shuffled = Arc::clone(plan).transform_up(|node| match node.downcast_ref::<HashJoinExec>() {
        Some(join) if gives_collected_rows(join) => Ok(Transformed::yes(partitioned(join, cores)?)),
        _ => Ok(Transformed::no(node)),
    })?;
    let rewritten = shuffled.data.transform_up(|node| {
        if let Some(repartition) = node.downcast_ref::<RepartitionExec>() {
            return less_repartitioned(&node, repartition, cores);
        }
        match files_of(&node).and_then(|scan| with_fewer_groups(scan, cores)) {
            Some(scan) => Ok(Transformed::yes(DataSourceExec::from_data_source(scan) as _)),
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(Some(rewritten.data))
}

/// Whether partitions mean something, as buckets of state do; and joins that need several to be shared out at all.
fn is_fixed(node: &Arc<dyn ExecutionPlan>) -> bool {
    let nested = node.downcast_ref::<NestedLoopJoinExec>();
    let hashed_leaf =
        node.children().is_empty() && matches!(node.output_partitioning(), Partitioning::Hash(..));
    hashed_leaf
        || descriptors::partitions(node.as_ref()).is_some()
        || nested.is_some_and(|join| !gives_probed_rows_only(*join.join_type()))
}

/// Rows of the side that is collected cannot come out of several tasks. `datafusion-distributed` makes partitioned
/// joins of these as well, but not of those whose sides have one partition.
fn gives_collected_rows(join: &HashJoinExec) -> bool {
    *join.partition_mode() == PartitionMode::CollectLeft
        && !gives_probed_rows_only(*join.join_type())
        && !join.null_aware
        && join.right().output_partitioning().partition_count() > 1
}

fn partitioned(join: &HashJoinExec, cores: usize) -> DfResult<Arc<dyn ExecutionPlan>> {
    let (left_keys, right_keys) = join.on().iter().cloned().unzip();
    let collected = match join.left().downcast_ref::<CoalescePartitionsExec>() {
        Some(coalesce) if coalesce.fetch().is_none() => coalesce.input(),
        _ => join.left(),
    };
    let left = RepartitionExec::try_new(Arc::clone(collected), Partitioning::Hash(left_keys, cores))?;
    let right = RepartitionExec::try_new(Arc::clone(join.right()), Partitioning::Hash(right_keys, cores))?;
    let join = join
        .builder()
        .with_partition_mode(PartitionMode::Partitioned)
        .with_new_children(vec![Arc::new(left), Arc::new(right)])?
        .build()?;
    Ok(Arc::new(join))
}

fn less_repartitioned(
    node: &Arc<dyn ExecutionPlan>,
    repartition: &RepartitionExec,
    cores: usize,
) -> DfResult<Transformed<Arc<dyn ExecutionPlan>>> {
    let partitioning = match repartition.partitioning() {
        // One task has one partition of its own: to deal rows out would change nothing.
        Partitioning::RoundRobinBatch(_) if cores == 1 => {
            return Ok(Transformed::yes(Arc::clone(repartition.input())));
        }
        Partitioning::RoundRobinBatch(count) if *count > cores => Partitioning::RoundRobinBatch(cores),
        Partitioning::Hash(keys, count) if *count > cores => Partitioning::Hash(keys.clone(), cores),
        _ => return Ok(Transformed::no(Arc::clone(node))),
    };
    let repartition = RepartitionExec::try_new(Arc::clone(repartition.input()), partitioning)?;
    Ok(Transformed::yes(Arc::new(repartition)))
}

/// The scan with `cores` groups of files; `None` where it has no more, or where rows have an order in theirs, or
/// files cannot be dealt out to tasks in parts.
fn with_fewer_groups(scan: &FileScanConfig, cores: usize) -> Option<FileScanConfig> {
    if scan.file_groups.len() <= cores || !scan.output_ordering.is_empty() || !can_be_cut(scan) {
        return None;
    }
    let all = FileGroup::new(whole_files(scan)?);
    let groups = FileGroupPartitioner::new()
        .with_target_partitions(cores)
        .with_repartition_file_min_size(0)
        .repartition_file_groups(std::slice::from_ref(&all))
        .unwrap_or_else(|| vec![all]);
    Some(FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups).build())
}

/// The files that were cut into ranges for so many groups, whole again; `None` where parts of one are missing.
fn whole_files(scan: &FileScanConfig) -> Option<Vec<PartitionedFile>> {
    let mut files: Vec<PartitionedFile> = Vec::new();
    for part in scan.file_groups.iter().flat_map(FileGroup::files) {
        let Some(range) = &part.range else {
            files.push(part.clone());
            continue;
        };
        match files.last_mut().filter(|last| last.object_meta.location == part.object_meta.location) {
            Some(last) => match &mut last.range {
                Some(before) if before.end == range.start => before.end = range.end,
                _ => return None,
            },
            None => files.push(part.clone()),
        }
    }
    for file in &mut files {
        if let Some(range) = file.range.take()
            && (range.start != 0 || range.end.unsigned_abs() != file.object_meta.size)
        {
            return None;
        }
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::dataframe::DataFrameWriteOptions;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

    async fn answer(context: &SessionContext, plan: &Arc<dyn ExecutionPlan>) -> String {
        let batches = collect(Arc::clone(plan), context.task_ctx()).await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    #[tokio::test]
    async fn answers_stay_and_partitions_become_fewer() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = SessionConfig::new().with_target_partitions(4);
        config.options_mut().optimizer.repartition_file_min_size = 0;
        let context = SessionContext::new_with_config(config);
        for file in ["a", "b"] {
            let path = folder.path().join(format!("{file}.parquet")).display().to_string();
            let rows = context
                .sql("SELECT value * 7919 % 5003 AS x, value % 7 AS y FROM generate_series(1, 5000)")
                .await
                .unwrap();
            rows.write_parquet(&path, DataFrameWriteOptions::new(), None).await.unwrap();
        }
        let place = folder.path().display().to_string();
        context.register_parquet("t", &place, ParquetReadOptions::default()).await.unwrap();
        for sql in [
            "SELECT y, count(*), sum(x) FROM t GROUP BY y ORDER BY y",
            "SELECT a.y, count(*) FROM t a JOIN t b ON a.x = b.x GROUP BY a.y ORDER BY a.y",
            "SELECT count(*), sum(x) FROM t a WHERE EXISTS (SELECT 1 FROM t b WHERE b.y = a.x)",
            "SELECT a.x, b.x FROM t a LEFT JOIN (SELECT x FROM t WHERE y = 3) b ON a.x = b.x ORDER BY a.x, b.x LIMIT 9",
            "SELECT x, row_number() OVER (PARTITION BY y ORDER BY x) FROM t ORDER BY 1, 2 LIMIT 5",
        ] {
            for cores in [1, 2] {
                // A plan runs once: a limit leaves in the scans what it has found.
                let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
                let fewer = fewer(&plan, cores).unwrap().unwrap();
                let shown = displayable(fewer.as_ref()).indent(false).to_string();
                let most =
                    |node: &Arc<dyn ExecutionPlan>| node.output_partitioning().partition_count() > cores;
                assert!(!fewer.exists(|node| Ok(most(node))).unwrap(), "{cores}: {sql}:\n{shown}");
                let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
                assert_eq!(answer(&context, &fewer).await, answer(&context, &plan).await, "{cores}: {sql}");
            }
        }
    }
}
