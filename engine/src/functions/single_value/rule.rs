//! Which subqueries are moved, and which are checked.

use super::function::single_value;
use super::moved;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DfResult};
use datafusion::logical_expr::{
    Distinct, Expr, FetchType, JoinType, LogicalPlan, LogicalPlanBuilder, Subquery,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Comes before DataFusion's rule that makes joins of scalar subqueries.
#[derive(Debug, Default)]
pub(crate) struct SingleValues;

impl OptimizerRule for SingleValues {
    fn name(&self) -> &str {
        "single_values"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        if config.options().optimizer.enable_physical_uncorrelated_scalar_subquery || !has_subqueries(&plan)?
        {
            return Ok(Transformed::no(plan));
        }
        let aliases = config.alias_generator();
        // The projection that comes below is rewritten next.
        match plan {
            LogicalPlan::Sort(node) => moved::sort(node, aliases),
            LogicalPlan::Aggregate(node) => moved::aggregate(node, aliases),
            LogicalPlan::Window(node) => moved::window(node, aliases),
            LogicalPlan::Join(node) => moved::join(node, aliases),
            plan => return plan.map_expressions(|expr| expr.transform_up(checked)),
        }
        .map(Transformed::yes)
    }
}

/// Correlated ones are joins in every engine, and DataFusion sees to it that they are aggregates.
pub(super) fn is_uncorrelated(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarSubquery(subquery) if subquery.outer_ref_columns.is_empty())
}

fn has_subqueries(plan: &LogicalPlan) -> DfResult<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        found |= expr.exists(|part| Ok(is_uncorrelated(part)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn checked(expr: Expr) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::ScalarSubquery(subquery)
            if subquery.outer_ref_columns.is_empty() && !has_one_row_at_most(&subquery.subquery) =>
        {
            single(subquery).map(|single| single.update_data(Expr::ScalarSubquery))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The subquery with one row, under the name that its column has had.
fn single(subquery: Subquery) -> DfResult<Transformed<Subquery>> {
    let plan = &subquery.subquery;
    let Some((qualifier, field)) = plan.schema().iter().next() else { return Ok(Transformed::no(subquery)) };
    let value = single_value().call(vec![Expr::Column(Column::from((qualifier, field)))]);
    let name = value.schema_name().to_string();
    let single = LogicalPlanBuilder::from(Arc::clone(plan))
        .aggregate(Vec::<Expr>::new(), vec![value])?
        .project([
            Expr::Column(Column::new_unqualified(name)).alias_qualified(qualifier.cloned(), field.name())
        ])?
        .build()?;
    Ok(Transformed::yes(subquery.with_plan(Arc::new(single))))
}

/// By its form alone: keys that a table declares are not checked by anybody.
fn has_one_row_at_most(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Values(values) => values.values.len() <= 1,
        LogicalPlan::Limit(limit) => {
            let fetch = limit.get_fetch_type();
            matches!(fetch, Ok(FetchType::Literal(Some(0 | 1)))) || has_one_row_at_most(&limit.input)
        }
        LogicalPlan::Projection(node) => has_one_row_at_most(&node.input),
        LogicalPlan::SubqueryAlias(node) => has_one_row_at_most(&node.input),
        LogicalPlan::Filter(node) => has_one_row_at_most(&node.input),
        LogicalPlan::Window(node) => has_one_row_at_most(&node.input),
        LogicalPlan::Sort(node) => has_one_row_at_most(&node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => has_one_row_at_most(input),
        LogicalPlan::Join(join) => {
            matches!(join.join_type, JoinType::Inner | JoinType::Left | JoinType::Right)
                && has_one_row_at_most(&join.left)
                && has_one_row_at_most(&join.right)
        }
        _ => false,
    }
}
