//! Least and greatest values that say too much. Statistics of Parquet and Delta leave NaN out, and a scan takes a
//! column whose least value is its greatest one for that value alone: a column of 1.1 and NaN would be 1.1.

use super::files_of;
use datafusion::common::Result as DfResult;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

/// The plan with scans that say no more than they know: for scans that are not [prepared](super::prepare).
pub(crate) fn widen(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let widened = plan.transform_up(|node| match files_of(&node).and_then(without_too_narrow) {
        Some(scan) => Ok(Transformed::yes(DataSourceExec::from_data_source(scan) as Arc<dyn ExecutionPlan>)),
        None => Ok(Transformed::no(node)),
    })?;
    Ok(widened.data)
}

/// The scan without such bounds; `None` where it has none.
pub(super) fn without_too_narrow(scan: &FileScanConfig) -> Option<FileScanConfig> {
    let says_too_much = |file: &PartitionedFile| {
        file.statistics.iter().flat_map(|known| &known.column_statistics).any(is_too_narrow)
    };
    if !scan.file_groups.iter().flat_map(FileGroup::files).any(says_too_much) {
        return None;
    }
    let groups = scan.file_groups.iter().map(|group| {
        let files = group.files().iter().map(|file| {
            let statistics = file.statistics.as_deref().map(|known| Arc::new(widened(known)));
            PartitionedFile { statistics, ..file.clone() }
        });
        FileGroup::new(files.collect())
    });
    Some(FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups.collect()).build())
}

fn is_too_narrow(column: &ColumnStatistics) -> bool {
    let value = column.min_value.get_value();
    value.is_some_and(|value| value.data_type().is_floating()) && column.min_value == column.max_value
}

fn widened(known: &Statistics) -> Statistics {
    let mut known = known.clone();
    for column in known.column_statistics.iter_mut().filter(|column| is_too_narrow(column)) {
        (column.min_value, column.max_value) = (Precision::Absent, Precision::Absent);
    }
    known
}
