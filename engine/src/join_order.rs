//! Small tables meet before they meet a large one.
//!
//! DataFusion joins tables in the order in which a query names them. In `supplier, lineitem, nation` the nations
//! would be joined to a row of each line, although they only say something of suppliers:
//!
//! ```text
//! (supplier ⋈ lineitem) ⋈ nation   becomes   (supplier ⋈ nation) ⋈ lineitem
//! ```
//! An inner join goes down to that side of the join below it which has all of its columns, if that side is the
//! smaller one by the statistics of its tables. It then meets fewer rows there, and what it drops never reaches
//! the larger side, nor the network.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, JoinConstraint, JoinType, NullEquality, Result as DfResult};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, Filter, Join, LogicalPlan, Projection};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::sync::Arc;

/// DataFusion's rule after which ours comes: filters are at their tables by then.
const AFTER: &str = "push_down_filter";
/// Share of rows that a filter is taken to leave.
const FILTERED: f64 = 0.2;
/// The same for rows per group.
const GROUPED: f64 = 0.3;

/// DataFusion's rules with ours.
pub(crate) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    let place = rules.iter().position(|rule| rule.name() == AFTER).map_or(rules.len(), |place| place + 1);
    rules.insert(place, Arc::new(JoinSmallFirst));
    rules
}

#[derive(Debug)]
struct JoinSmallFirst;

impl OptimizerRule for JoinSmallFirst {
    fn name(&self) -> &str {
        "join_small_first"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        if !config.options().optimizer.join_reordering {
            return Ok(Transformed::no(plan));
        }
        plan.transform_down_with_subqueries(|node| {
            let LogicalPlan::Join(join) = &node else { return Ok(Transformed::no(node)) };
            let Some(ordered) = reordered(join)? else { return Ok(Transformed::no(node)) };
            let schema = node.schema();
            if ordered.schema() == schema {
                return Ok(Transformed::yes(ordered));
            }
            // The columns as they were.
            let columns = schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
            let same = Projection::try_new_with_schema(columns, Arc::new(ordered), schema.clone())?;
            Ok(Transformed::yes(LogicalPlan::Projection(same)))
        })
    }
}

/// A tree of inner joins in a better order; `None` when it is good as it is. The columns may come in another order.
fn reordered(join: &Join) -> DfResult<Option<LogicalPlan>> {
    if !is_movable(join) {
        return Ok(None);
    }
    let below = |side: &Arc<LogicalPlan>| match side.as_ref() {
        LogicalPlan::Join(join) => reordered(join),
        _ => Ok(None),
    };
    let (left, right) = (below(&join.left)?, below(&join.right)?);
    let changed = left.is_some() || right.is_some();
    let left = left.map_or_else(|| join.left.clone(), Arc::new);
    let right = right.map_or_else(|| join.right.clone(), Arc::new);
    let turned: Vec<(Expr, Expr)> =
        join.on.iter().map(|(left, right)| (right.clone(), left.clone())).collect();
    let sunk = match sunk(&left, &right, &join.on)? {
        Some(sunk) => Some(sunk),
        None => sunk(&right, &left, &turned)?,
    };
    let Some(sunk) = sunk else {
        return changed
            .then(|| joined(left, right, join.on.clone(), join.filter.clone()).map(LogicalPlan::Join))
            .transpose();
    };
    // A condition over both sides sees them together again above all.
    let all = match &join.filter {
        Some(filter) => LogicalPlan::Filter(Filter::try_new(filter.clone(), Arc::new(sunk))?),
        None => sunk,
    };
    Ok(Some(all))
}

/// `tree` with `table` joined to the one side of a join below that has all the columns of `on` and is the smaller.
fn sunk(
    tree: &Arc<LogicalPlan>,
    table: &Arc<LogicalPlan>,
    on: &[(Expr, Expr)],
) -> DfResult<Option<LogicalPlan>> {
    let LogicalPlan::Join(join) = tree.as_ref() else { return Ok(None) };
    if !is_movable(join) {
        return Ok(None);
    }
    for (side, other) in [(&join.left, &join.right), (&join.right, &join.left)] {
        let smaller = rows(side).zip(rows(other)).is_some_and(|(side, other)| side < other);
        if !smaller || !on.iter().all(|(column, _)| is_over(column, side.schema())) {
            continue;
        }
        let new = match sunk(side, table, on)? {
            Some(new) => new,
            None => LogicalPlan::Join(joined(side.clone(), table.clone(), on.to_vec(), None)?),
        };
        let (left, right) = match Arc::ptr_eq(side, &join.left) {
            true => (Arc::new(new), join.right.clone()),
            false => (join.left.clone(), Arc::new(new)),
        };
        return Ok(Some(LogicalPlan::Join(joined(left, right, join.on.clone(), join.filter.clone())?)));
    }
    Ok(None)
}

fn joined(
    left: Arc<LogicalPlan>,
    right: Arc<LogicalPlan>,
    on: Vec<(Expr, Expr)>,
    filter: Option<Expr>,
) -> DfResult<Join> {
    let (inner, nulls) = (JoinType::Inner, NullEquality::NullEqualsNothing);
    Join::try_new(left, right, on, filter, inner, JoinConstraint::On, nulls, false)
}

fn is_movable(join: &Join) -> bool {
    join.join_type == JoinType::Inner
        && join.null_equality == NullEquality::NullEqualsNothing
        && !join.null_aware
        && !join.on.is_empty()
}

fn is_over(expr: &Expr, schema: &DFSchema) -> bool {
    let columns = expr.column_refs();
    !columns.is_empty() && columns.iter().all(|column| schema.has_column(column))
}

/// About how many rows a plan gives, if its tables know.
fn rows(plan: &LogicalPlan) -> Option<f64> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let known = source_as_provider(&scan.source).ok()?.statistics()?.num_rows;
            known.get_value().map(|rows| *rows as f64)
        }
        LogicalPlan::Filter(filter) => rows(&filter.input).map(|rows| rows * FILTERED),
        LogicalPlan::Aggregate(aggregate) => rows(&aggregate.input).map(|rows| rows * GROUPED),
        LogicalPlan::Join(join) => match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => rows(&join.left),
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => rows(&join.right),
            _ => rows(&join.left).zip(rows(&join.right)).map(|(left, right)| left.max(right)),
        },
        LogicalPlan::Union(union) => union.inputs.iter().map(|input| rows(input)).sum(),
        LogicalPlan::Values(values) => Some(values.values.len() as f64),
        LogicalPlan::Projection(projection) => rows(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => rows(&alias.input),
        LogicalPlan::Sort(sort) => rows(&sort.input),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::SchemaRef;
    use arrow::util::pretty::pretty_format_batches;
    use async_trait::async_trait;
    use datafusion::catalog::{Session, TableProvider};
    use datafusion::common::Statistics;
    use datafusion::common::stats::Precision;
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    use datafusion::datasource::{MemTable, TableType};
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::physical_plan::ExecutionPlan;
    use datafusion::prelude::SessionContext;

    /// A table that knows how many rows it has.
    #[derive(Debug)]
    struct Counted {
        memory: MemTable,
        rows: usize,
    }

    #[async_trait]
    impl TableProvider for Counted {
        fn schema(&self) -> SchemaRef {
            self.memory.schema()
        }

        fn table_type(&self) -> TableType {
            TableType::Base
        }

        fn statistics(&self) -> Option<Statistics> {
            let rows = Precision::Exact(self.rows);
            Some(Statistics { num_rows: rows, ..Statistics::new_unknown(&self.schema()) })
        }

        async fn scan(
            &self,
            state: &dyn Session,
            projection: Option<&Vec<usize>>,
            filters: &[Expr],
            limit: Option<usize>,
        ) -> DfResult<Arc<dyn ExecutionPlan>> {
            self.memory.scan(state, projection, filters, limit).await
        }
    }

    fn context(rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> SessionContext {
        let state = SessionStateBuilder::new().with_default_features().with_optimizer_rules(rules).build();
        let context = SessionContext::new_with_state(state);
        for (table, key, of, rows) in
            [("nation", "n", "region", 5), ("supplier", "s", "n", 50), ("line", "l", "s", 5000)]
        {
            let keys = Int64Array::from_iter_values(0..rows);
            let references = Int64Array::from_iter_values((0..rows).map(|row| row % (rows / 10).max(1)));
            let batch = RecordBatch::try_from_iter([
                (format!("{key}_key"), Arc::new(keys) as arrow::array::ArrayRef),
                (format!("{key}_{of}"), Arc::new(references)),
            ]);
            let batch = batch.unwrap();
            let memory = MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap();
            context.register_table(table, Arc::new(Counted { memory, rows: rows as usize })).unwrap();
        }
        context
    }

    /// The tables in the order in which they are joined, and the answer.
    async fn asked(context: &SessionContext, sql: &str) -> (String, String) {
        let frame = context.sql(sql).await.unwrap();
        let plan = frame.clone().into_optimized_plan().unwrap();
        let mut tables = Vec::new();
        plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                tables.push(scan.table_name.to_string());
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        let answer = frame.collect().await.unwrap();
        (tables.join(" "), pretty_format_batches(&answer).unwrap().to_string())
    }

    async fn order(sql: &str) -> String {
        let (order, answer) = asked(&context(rules()), sql).await;
        let (_, usual) = asked(&context(Optimizer::new().rules), sql).await;
        assert_eq!(answer, usual, "{sql}");
        order
    }

    #[tokio::test]
    async fn a_table_is_joined_to_the_small_one_that_names_it() {
        let sql = "SELECT * FROM supplier, line, nation WHERE s_key = l_s AND s_n = n_key ORDER BY l_key";
        assert_eq!(order(sql).await, "supplier nation line");
        let filtered = "SELECT l_key, n_key FROM line JOIN supplier ON s_key = l_s JOIN nation ON s_n = n_key \
                        AND l_key > n_key WHERE n_region = 0 ORDER BY l_key";
        assert_eq!(order(filtered).await, "line supplier nation");
    }

    #[tokio::test]
    async fn what_is_joined_to_the_large_one_stays() {
        let star = "SELECT count(*) FROM line, supplier, nation WHERE s_key = l_s AND l_key = n_key";
        assert_eq!(order(star).await, "line supplier nation");
        let outer = "SELECT count(*) FROM supplier JOIN line ON s_key = l_s LEFT JOIN nation ON s_n = n_key";
        assert_eq!(order(outer).await, "supplier line nation");
    }
}
