//! Puts [`RuntimeFilterExec`] above the scans that were handed filters which are known only at run time.
//!
//! ```text
//! HashJoin ── its build side's keys ──▶ Parquet scan: prunes row groups and pages by them
//!                                  └──▶ RuntimeFilterExec above it: drops rows by them
//! ```
//! The filter is the very object that the join fills in, so this is done where the plan runs, after all rules.

use crate::exec::RuntimeFilterExec;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_expr::expressions::{Column, DynamicFilterTracking};
use datafusion::physical_expr::utils::conjunction;
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use std::sync::Arc;

/// `plan` with its run-time filters evaluated early.
pub(crate) fn insert(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    if let Some(HandedDown { predicate, columns }) = handed_down(&plan)
        && let Some(predicate) = over_output(predicate, &columns)?
    {
        return Ok(Arc::new(RuntimeFilterExec::new(plan, predicate)));
    }
    let children = plan.children();
    if children.is_empty() {
        return Ok(plan);
    }
    let children: Vec<_> = children.into_iter().cloned().map(insert).collect::<DfResult<_>>()?;
    let unchanged = plan.children().into_iter().zip(&children).all(|(old, new)| Arc::ptr_eq(old, new));
    match unchanged {
        true => Ok(plan),
        false => {
            plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
        }
    }
}

/// Filters over a scanned table's columns.
struct HandedDown {
    predicate: Arc<dyn PhysicalExpr>,
    /// For each column of the output its place in the table, where it is one of its columns.
    columns: Vec<Option<usize>>,
}

/// The run-time filters of a scan, or of a scan below its static filter.
fn handed_down(plan: &Arc<dyn ExecutionPlan>) -> Option<HandedDown> {
    let Some(filter) = plan.downcast_ref::<FilterExec>() else { return of_scan(plan) };
    let HandedDown { predicate, columns } = of_scan(filter.input())?;
    let columns = match filter.projection().as_deref() {
        Some(projection) => projection.iter().map(|place| columns.get(*place).copied().flatten()).collect(),
        None => columns,
    };
    Some(HandedDown { predicate, columns })
}

fn of_scan(plan: &Arc<dyn ExecutionPlan>) -> Option<HandedDown> {
    let scan = plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()?;
    let source = scan.file_source();
    let predicate = source.filter()?;
    let dynamic: Vec<_> = split_conjunction(&predicate)
        .into_iter()
        .filter(|part| DynamicFilterTracking::classify(part).contains_dynamic_filter())
        .cloned()
        .collect();
    if dynamic.is_empty() {
        return None;
    }
    let columns = match source.projection() {
        Some(projection) => {
            projection.iter().map(|column| column.expr.downcast_ref::<Column>().map(Column::index)).collect()
        }
        None => (0..plan.schema().fields().len()).map(Some).collect(),
    };
    Some(HandedDown { predicate: conjunction(dynamic), columns })
}

/// `predicate`, which is over the table's columns, over those of the output; `None` where one of them is gone.
fn over_output(
    predicate: Arc<dyn PhysicalExpr>,
    columns: &[Option<usize>],
) -> DfResult<Option<Arc<dyn PhysicalExpr>>> {
    let mut complete = true;
    let moved = predicate.transform_up(|expr| {
        let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
        match columns.iter().position(|place| *place == Some(column.index())) {
            Some(place) => {
                let moved: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), place));
                Ok(Transformed::yes(moved))
            }
            None => {
                complete = false;
                Ok(Transformed::no(expr))
            }
        }
    })?;
    Ok(complete.then_some(moved.data))
}
