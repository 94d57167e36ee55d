//! What a streaming query may be made of: the rest is refused by name, before anything is created.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// Fails with `Code::Unsupported` for a plan that cannot be run epoch by epoch with the same result.
pub(super) fn check(plan: &LogicalPlan, unnests: bool) -> Result<()> {
    let mut aggregates = 0;
    let mut scans = 0;
    let mut refused: Option<(&'static str, &'static str)> = None;
    plan.apply(|node| {
        let fault = match node {
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => None,
            LogicalPlan::Aggregate(_) => {
                aggregates += 1;
                (aggregates > 1).then_some((
                    "more than one aggregation",
                    "create one streaming table for the first, and aggregate that one in a query",
                ))
            }
            LogicalPlan::TableScan(_) => {
                scans += 1;
                (scans > 1).then_some(("more than one source", "a streaming table reads one source"))
            }
            LogicalPlan::Distinct(_) => {
                Some(("DISTINCT", "FROM DEDUPLICATE(source, key) removes duplicates within the watermark"))
            }
            LogicalPlan::Sort(_) => Some(("ORDER BY", "sort when you query the table")),
            LogicalPlan::Limit(_) => Some(("LIMIT", "limit when you query the table")),
            LogicalPlan::Join(_) => Some(("a join", "join when you query the table")),
            LogicalPlan::Window(_) => {
                Some(("a window function (OVER)", "use TUMBLE or HOP with GROUP BY window_start"))
            }
            LogicalPlan::Union(_) => Some(("UNION", "create one streaming table for each part")),
            LogicalPlan::Unnest(_) if unnests => None,
            LogicalPlan::Unnest(_) => Some(("UNNEST", "unnest when you query the table")),
            _ => Some(("this form of query", "SELECT … FROM source [WHERE] [GROUP BY window_start, …]")),
        };
        let volatile = node.expressions().iter().any(Expr::is_volatile);
        let fault = fault.or(volatile.then_some((
            "a function whose value changes from call to call",
            "an epoch that is run again must give the same rows: use columns of the event",
        )));
        Ok(match fault {
            Some(fault) => {
                refused = Some(fault);
                TreeNodeRecursion::Stop
            }
            None => TreeNodeRecursion::Continue,
        })
    })
    .map_err(from_datafusion)?;
    match refused {
        Some((what, instead)) => {
            Err(Error::new(Code::Unsupported, format!("{what} in a streaming table")).hint(instead))
        }
        None => Ok(()),
    }
}
