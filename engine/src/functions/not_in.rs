//! `x NOT IN (SELECT v …)` beside OR. DataFusion makes a join of it that does not know NULL: a row passes where SQL
//! does not know whether it should. Where NOT IN is a condition of its own, DataFusion's join is exact.
//!
//! ```text
//! x NOT IN (q)  =  q has no rows, or x and all values of q are known, and none of these is x
//! ```
//! Within WHERE, AND and OR alone, what is not known counts as false, so this is all that there is to ask.

use datafusion::common::{DFSchema, Result as DfResult, tree_node::Transformed};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// Comes before DataFusion's rule that makes joins of IN.
#[derive(Debug, Default)]
pub(super) struct NotInWithNulls;

impl OptimizerRule for NotInWithNulls {
    fn name(&self) -> &str {
        "not_in_with_nulls"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let schema = Arc::clone(filter.input.schema());
        let mut changed = false;
        let conditions = split_conjunction(&filter.predicate).into_iter().map(|condition| match condition {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
                let exact = within_or(condition.clone(), &schema)?;
                changed |= exact.transformed;
                Ok(exact.data)
            }
            other => Ok(other.clone()),
        });
        let conditions = conditions.collect::<DfResult<Vec<_>>>()?;
        match conjunction(conditions) {
            Some(predicate) if changed => {
                Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?)))
            }
            _ => Ok(Transformed::no(LogicalPlan::Filter(filter))),
        }
    }
}

fn within_or(expr: Expr, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Or | Operator::And), right }) => {
            let (left, right) = (within_or(*left, schema)?, within_or(*right, schema)?);
            let changed = left.transformed || right.transformed;
            let both = BinaryExpr::new(Box::new(left.data), op, Box::new(right.data));
            Ok(Transformed::new_transformed(Expr::BinaryExpr(both), changed))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated: true }) => exact(*expr, subquery, schema),
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(InSubquery { expr, subquery, negated: false }) => exact(*expr, subquery, schema),
            other => Ok(Transformed::no(Expr::Not(Box::new(other)))),
        },
        other => Ok(Transformed::no(other)),
    }
}

fn exact(value: Expr, query: Subquery, schema: &DFSchema) -> DfResult<Transformed<Expr>> {
    let column = Expr::Column(query.subquery.schema().columns().swap_remove(0));
    let (unknown_value, unknown_found) =
        (value.nullable(schema)?, column.nullable(query.subquery.schema().as_ref())?);
    let is_none = Expr::InSubquery(InSubquery::new(Box::new(value.clone()), query.clone(), true));
    if !unknown_value && !unknown_found {
        return Ok(Transformed::no(is_none));
    }
    let mut known = is_none;
    if unknown_found {
        known = has_none(&query, Some(column.is_null()))?.and(known);
    }
    if unknown_value {
        known = has_none(&query, None)?.or(value.is_not_null().and(known));
    }
    Ok(Transformed::yes(known))
}

/// That a query has no rows, or none that pass a condition. One that names columns outside is asked by EXISTS, as
/// DataFusion counts only those whose conditions are equalities; any other one is counted once for all rows.
fn has_none(query: &Subquery, condition: Option<Expr>) -> DfResult<Expr> {
    let mut rows = LogicalPlanBuilder::from(Arc::clone(&query.subquery));
    if let Some(condition) = condition {
        rows = rows.filter(condition)?;
    }
    if !query.outer_ref_columns.is_empty() {
        return Ok(Expr::Exists(Exists::new(query.with_plan(Arc::new(rows.build()?)), true)));
    }
    let counted = rows.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64))])?.build()?;
    Ok(Expr::ScalarSubquery(query.with_plan(Arc::new(counted))).eq(lit(0_i64)))
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    /// The ids that pass, of a session of ours.
    async fn passing(condition: &str, as_joins: bool) -> String {
        let state = crate::functions::with_functions(Default::default()).build();
        let context = SessionContext::new_with_state(state);
        for set in [
            format!("SET datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery = {}", !as_joins),
            "CREATE TABLE t (id INT, k INT) AS VALUES (1, 1), (2, 1), (3, 2), (NULL, 2)".to_owned(),
            "CREATE TABLE gone (id INT, k INT) AS VALUES (2, 1), (NULL, 2)".to_owned(),
        ] {
            context.sql(&set).await.unwrap().collect().await.unwrap();
        }
        let sql = format!("SELECT coalesce(id, 0) AS id FROM t WHERE {condition} ORDER BY id");
        let rows = context.sql(&sql).await.unwrap().collect().await.unwrap();
        let table = pretty_format_batches(&rows).unwrap().to_string();
        table
            .lines()
            .filter_map(|line| line.trim_matches(['|', ' ']).parse::<i32>().ok())
            .map(|id| id.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[tokio::test]
    async fn what_is_not_known_does_not_pass() {
        for (condition, ids) in [
            ("id = 1 OR id NOT IN (SELECT id FROM gone)", "1"),
            ("id = 1 OR NOT (id IN (SELECT id FROM gone))", "1"),
            ("k = 2 AND (id = 1 OR id NOT IN (SELECT id FROM gone WHERE id > 1))", "3"),
            ("id = 1 OR id NOT IN (SELECT id FROM gone WHERE id > 5)", "0 1 2 3"),
            ("id = 1 OR id NOT IN (SELECT id FROM gone WHERE gone.k = t.k)", "1"),
            (
                "id = 9 OR (id > 1 AND id NOT IN (SELECT id FROM gone WHERE gone.k = t.k AND id IS NOT NULL))",
                "3",
            ),
            ("id = 9 OR id + 1 NOT IN (SELECT id + 0 FROM gone WHERE t.k > 1)", "1 2"),
            ("id = 9 OR id + 1 NOT IN (SELECT id + 0 FROM gone WHERE t.k > 1 AND id > 0)", "1 2 3"),
            ("id = 3 OR id IN (SELECT id FROM gone)", "2 3"),
            ("id NOT IN (SELECT id FROM gone)", ""),
        ] {
            for as_joins in [false, true] {
                assert_eq!(passing(condition, as_joins).await, ids, "{condition}, {as_joins}");
            }
        }
    }
}
