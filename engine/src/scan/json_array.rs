//! Files that are one JSON array each. DataFusion reads them only whole, and still deals out parts of large ones;
//! and neither its plans as they are sent nor its source say that they are not files of lines.

use super::source::{files, files_of};
use datafusion::datasource::listing::FileRange;
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, JsonSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use object_store::memory::InMemory;
use std::sync::Arc;

/// Whether the files of a scan are JSON arrays.
pub(crate) fn reads_arrays(scan: &FileScanConfig) -> bool {
    if !scan.file_source().is::<JsonSource>() {
        return false;
    }
    let Some(file) = files(scan).next() else { return false };
    // A source for lines begins anywhere, one for arrays refuses before it reads: the only difference that shows.
    let part = file.clone().with_range(0, 1);
    let source = scan.file_source().with_batch_size(1);
    let opener = source.create_file_opener(Arc::new(InMemory::new()), scan, 0);
    opener.and_then(|opener| opener.open(part)).is_err()
}

/// The scan with each array read whole, by whom its beginning was given to; `None` where nothing was cut.
pub(super) fn whole(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = files_of(plan)?;
    if files(scan).all(|file| file.range.is_none()) || !reads_arrays(scan) {
        return None;
    }
    let begins = |range: &Option<FileRange>| range.as_ref().is_none_or(|range| range.start == 0);
    let groups = scan.file_groups.iter().map(|group| {
        let begun = group.iter().filter(|file| begins(&file.range)).cloned();
        begun.map(|mut file| {
            file.range = None;
            file
        })
    });
    let groups = groups.map(|group| group.collect::<Vec<_>>().into()).collect();
    let scan = FileScanConfigBuilder::from(scan.clone()).with_file_groups(groups).build();
    Some(DataSourceExec::from_data_source(scan))
}
