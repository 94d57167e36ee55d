//! Filters of scans that a join, a limit or an aggregate above fills in while it runs.
//!
//! Such a filter is one object that the operator and the scans below share. So it outlives a run: a plan that is run
//! again would read by what the first run has found out, and leave out rows that the second one has not seen yet.

use crate::exec::SelectRowsExec;
use crate::scan;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

/// The plan whose scans have what is known now, and nothing that is filled in later, by whomever. Only scans of
/// Parquet take such filters; above them are the operators that fill them in.
pub(crate) fn none(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let settled = plan.transform_up(|node| {
        let settled = match node.downcast_ref::<SelectRowsExec>() {
            Some(select) => settled_scan(select.template())?
                .map(|template| Arc::new(select.with_template(template)) as Arc<dyn ExecutionPlan>),
            None => settled_scan(&node)?,
        };
        Ok(settled.map_or_else(|| Transformed::no(node), Transformed::yes))
    })?;
    Ok(settled.data)
}

/// `None` where nothing changes.
fn settled_scan(node: &Arc<dyn ExecutionPlan>) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = scan::files_of(node) else { return Ok(None) };
    let source = scan.file_source().downcast_ref::<ParquetSource>();
    let Some((source, filter)) = source.zip(scan.file_source().filter()) else { return Ok(None) };
    let filter = filter.transform_up(|part| match part.downcast_ref::<DynamicFilterPhysicalExpr>() {
        Some(filter) => Ok(Transformed::yes(filter.current()?)),
        None => Ok(Transformed::no(part)),
    })?;
    if !filter.transformed {
        return Ok(None);
    }
    let source = Arc::new(source.with_predicate(filter.data));
    let scan = FileScanConfigBuilder::from(scan.clone()).with_source(source).build();
    Ok(Some(DataSourceExec::from_data_source(scan)))
}
