//! Orders that hold without what a plan knows of its columns.
//!
//! A sort leaves out a column that a filter below has made constant. Cut in two by a shuffle, the upper part of the
//! plan no longer knows of the constant, and a window function partitioned by it would find its input unordered.

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ExecutionPlanProperties, InputOrderMode, ReplaceChildrenOptions,
};
use std::sync::Arc;

/// The plan with the constant ones among the partition columns of its window functions sorted by in so many words.
pub fn of_windows(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let explicit = plan.transform_up(|node| {
        let Some(partition_by) = sorted_partitions(&node) else { return Ok(Transformed::no(node)) };
        let &[input] = node.children().as_slice() else { return Ok(Transformed::no(node)) };
        let known = input.equivalence_properties();
        let constant = partition_by
            .iter()
            .filter(|expr| known.is_expr_constant(expr).is_some())
            .map(|expr| PhysicalSortExpr::new_default(expr.clone()));
        let Some(sorted) = sorted_by_all(input, constant.collect()) else { return Ok(Transformed::no(node)) };
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        Ok(Transformed::yes(node.replace_children(vec![sorted], options)?))
    })?;
    Ok(explicit.data)
}

/// What a window function partitions by, where it counts on an input that is sorted by it.
fn sorted_partitions(node: &Arc<dyn ExecutionPlan>) -> Option<Vec<Arc<dyn PhysicalExpr>>> {
    let windows = match node.downcast_ref::<BoundedWindowAggExec>() {
        Some(bounded) if bounded.input_order_mode == InputOrderMode::Sorted => bounded.window_expr(),
        Some(_) => return None,
        None => node.downcast_ref::<WindowAggExec>()?.window_expr(),
    };
    windows.first().map(|window| window.partition_by().to_vec())
}

/// The input sorted by `constant` too; as their values are all the same they may come first. `None` when there is
/// nothing to do.
fn sorted_by_all(
    input: &Arc<dyn ExecutionPlan>,
    constant: Vec<PhysicalSortExpr>,
) -> Option<Arc<dyn ExecutionPlan>> {
    let (below, order) = match input.downcast_ref::<SortExec>() {
        Some(sort) if sort.fetch().is_none() => (sort.input(), sort.expr().to_vec()),
        _ => (input, input.output_ordering().map(|order| order.to_vec()).unwrap_or_default()),
    };
    let missing =
        constant.into_iter().filter(|constant| !order.iter().any(|other| other.expr.eq(&constant.expr)));
    let all: Vec<_> = missing.chain(order.iter().cloned()).collect();
    if all.len() == order.len() {
        return None;
    }
    let several = input.output_partitioning().partition_count() > 1;
    let sort = SortExec::new(LexOrdering::new(all)?, below.clone()).with_preserve_partitioning(several);
    Some(Arc::new(sort))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::SessionContext;

    async fn explicit(sql: &str) -> (String, String) {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t (k INT, n INT) AS VALUES (1, 1), (1, 2), (2, 3)").await.unwrap();
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let shown = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(false).to_string();
        (shown(&plan), shown(&of_windows(plan).unwrap()))
    }

    #[tokio::test]
    async fn constants_are_sorted_by() {
        let (before, after) = explicit("SELECT avg(n) OVER (PARTITION BY k, n) FROM t WHERE k = 1").await;
        assert!(!before.contains("k@0 ASC"), "no reason for the rule any more: {before}");
        assert!(after.contains("SortExec: expr=[k@0 ASC, n@1 ASC"), "{after}");
        let (_, after) = explicit("SELECT avg(n) OVER (PARTITION BY k) FROM t WHERE k = 1").await;
        assert!(after.contains("SortExec: expr=[k@0 ASC"), "{after}");
    }

    #[tokio::test]
    async fn other_plans_stay() {
        let (before, after) = explicit("SELECT avg(n) OVER (PARTITION BY k) FROM t WHERE n = 1").await;
        assert_eq!(before, after);
    }
}
