//! Which aggregations count by sets.

use super::function::count_distinct;
use super::keys::Kind;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// `count(DISTINCT x)` beside GROUP BY becomes `count_distinct(x)`, whatever else is aggregated.
#[derive(Debug, Default)]
pub(crate) struct GroupedSets;

impl OptimizerRule for GroupedSets {
    fn name(&self) -> &str {
        "grouped_sets"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        if aggregate.group_expr.is_empty() {
            return Ok(Transformed::no(plan));
        }
        let schema = aggregate.input.schema();
        let rewritten: Vec<Option<Expr>> =
            aggregate.aggr_expr.iter().map(|expr| by_sets(expr, schema)).collect();
        if rewritten.iter().all(Option::is_none) {
            return Ok(Transformed::no(plan));
        }
        let expressions = rewritten.into_iter().zip(&aggregate.aggr_expr);
        let expressions = expressions.map(|(ours, theirs)| ours.unwrap_or_else(|| theirs.clone())).collect();
        let groups = aggregate.group_expr.clone();
        let aggregate = Aggregate::try_new(Arc::clone(&aggregate.input), groups, expressions)?;
        Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
    }
}

/// Under the name that it has had.
fn by_sets(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let (inner, name) = match expr {
        Expr::Alias(alias) => (alias.expr.as_ref(), alias.name.clone()),
        inner => (inner, inner.schema_name().to_string()),
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) = inner else { return None };
    let AggregateFunctionParams { args, distinct: true, filter, order_by, null_treatment } = params else {
        return None;
    };
    let [argument] = args.as_slice() else { return None };
    if func.name() != "count" || !order_by.is_empty() {
        return None;
    }
    Kind::of(&argument.get_type(schema).ok()?)?;
    let counted = AggregateFunction::new_udf(
        count_distinct(),
        args.clone(),
        false,
        filter.clone(),
        Vec::new(),
        *null_treatment,
    );
    Some(Expr::AggregateFunction(counted).alias(name))
}
