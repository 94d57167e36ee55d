//! Where a condition on a column of a plan's rows may already be asked: at the scans that the column comes from.
//!
//! ```text
//! orders.key in S, asked of     HashJoin(orders.key = lineitem.orderkey)
//!                                ├─ Repartition ─ Scan(orders)      ◀─ key in S
//!                                └─ Repartition ─ Scan(lineitem)    ◀─ orderkey in S, as no other rows have a partner
//! ```

use crate::scan::files_of;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinSide, JoinType, Result as DfResult};
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::utils::build_join_schema;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use std::sync::Arc;

/// A scan, and which of its table's columns it is about.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) scan: Arc<dyn ExecutionPlan>,
    pub(super) column: Column,
    /// Whether rows of the scan are sent to others before the condition would have met them.
    pub(super) is_sent: bool,
}

/// The scans whose rows may be left out where `column` of `plan`'s rows would not pass.
pub(super) fn targets(plan: &Arc<dyn ExecutionPlan>, column: usize) -> Vec<Target> {
    let mut found = Vec::new();
    visit(plan, column, false, &mut found);
    found
}

fn visit(plan: &Arc<dyn ExecutionPlan>, column: usize, is_sent: bool, found: &mut Vec<Target>) {
    // Fewer rows before a limit are other rows after it.
    if plan.fetch().is_some() {
        return;
    }
    if let Some(column) = table_column(plan, column) {
        found.push(Target { scan: Arc::clone(plan), column, is_sent });
    } else if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        visit_join(join, column, is_sent, found);
    } else if plan.is::<CoalescePartitionsExec>() {
        visit_only(plan, column, is_sent, found);
    } else if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        let shuffles = matches!(repartition.partitioning(), Partitioning::Hash(..));
        visit_only(plan, column, is_sent || shuffles, found);
    } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let column = filter.projection().as_ref().map_or(Some(column), |given| given.get(column).copied());
        column.into_iter().for_each(|column| visit_only(plan, column, is_sent, found));
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let given = projection.expr().get(column).and_then(|given| column_of(&given.expr));
        given.into_iter().for_each(|column| visit_only(plan, column, is_sent, found));
    } else if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        let group = aggregate.group_expr();
        // Whole groups pass or do not.
        if !group.has_grouping_set() && aggregate.limit_options().is_none() {
            let key = group.expr().get(column).and_then(|(key, _)| column_of(key));
            key.into_iter().for_each(|column| visit_only(plan, column, is_sent, found));
        }
    }
}

fn visit_only(plan: &Arc<dyn ExecutionPlan>, column: usize, is_sent: bool, found: &mut Vec<Target>) {
    if let [input] = plan.children().as_slice() {
        visit(input, column, is_sent, found);
    }
}

fn visit_join(join: &HashJoinExec, column: usize, is_sent: bool, found: &mut Vec<Target>) {
    let column = join.projection.as_ref().map_or(Some(column), |given| given.get(column).copied());
    let (_, places) = build_join_schema(&join.left().schema(), &join.right().schema(), join.join_type());
    let Some(place) = column.and_then(|column| places.get(column)) else { return };
    // Without its partner a row that is kept would come out with NULLs.
    let keeps = |side: JoinSide| keeps_unmatched(*join.join_type(), side);
    let (this, other) = match place.side {
        JoinSide::Left => (JoinSide::Left, JoinSide::Right),
        JoinSide::Right => (JoinSide::Right, JoinSide::Left),
        JoinSide::None => return,
    };
    if keeps(other) {
        return;
    }
    let broadcast = *join.partition_mode() == PartitionMode::CollectLeft;
    let mut go = |side: JoinSide, column: usize| match side {
        JoinSide::Left => visit(join.left(), column, is_sent || broadcast, found),
        _ => visit(join.right(), column, is_sent, found),
    };
    go(this, place.index);
    // One NULL among the rows of the other side decides for all.
    if join.null_aware {
        return;
    }
    for (left, right) in join.on() {
        let (here, there) = if this == JoinSide::Left { (left, right) } else { (right, left) };
        if column_of(here) == Some(place.index)
            && let Some(partner) = column_of(there)
            && here.data_type(&side_schema(join, this)).ok()
                == there.data_type(&side_schema(join, other)).ok()
        {
            go(other, partner);
        }
    }
}

fn side_schema(join: &HashJoinExec, side: JoinSide) -> arrow::datatypes::SchemaRef {
    if side == JoinSide::Left { join.left().schema() } else { join.right().schema() }
}

/// Whether rows of a side come out though they have no partner.
pub(super) fn keeps_unmatched(join: JoinType, side: JoinSide) -> bool {
    match join {
        JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => false,
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => side == JoinSide::Left,
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => side == JoinSide::Right,
        JoinType::Full => true,
    }
}

/// Whether no row comes from the build side alone, so that several tasks can have all of it.
pub(crate) fn gives_probed_rows_only(join: JoinType) -> bool {
    matches!(
        join,
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
    )
}

/// The column of its table that a scan gives in this place, if it reads Parquet files.
fn table_column(plan: &Arc<dyn ExecutionPlan>, column: usize) -> Option<Column> {
    let source = files_of(plan)?.file_source();
    source.downcast_ref::<ParquetSource>()?;
    let table = source.table_schema().table_schema();
    let index = match source.projection() {
        Some(given) => column_of(&given.iter().nth(column)?.expr)?,
        None => column,
    };
    Some(Column::new(table.fields().get(index)?.name(), index))
}

fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// The plan with one more condition on each of these scans.
pub(super) fn with_conditions(
    plan: Arc<dyn ExecutionPlan>,
    conditions: &[(Target, Arc<dyn PhysicalExpr>)],
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let narrowed = plan.transform_up(|node| {
        let of_node = conditions.iter().filter(|(target, _)| Arc::ptr_eq(&target.scan, &node));
        let Some(more) = of_node.map(|(_, condition)| Arc::clone(condition)).reduce(and) else {
            return Ok(Transformed::no(node));
        };
        let Some((scan, source)) = files_of(&node)
            .and_then(|scan| Some((scan, scan.file_source().downcast_ref::<ParquetSource>()?)))
        else {
            return Ok(Transformed::no(node));
        };
        let condition = match scan.file_source().filter() {
            Some(before) => and(before, more),
            None => more,
        };
        let source = Arc::new(source.with_predicate(condition));
        let scan = FileScanConfigBuilder::from(scan.clone()).with_source(source).build();
        Ok(Transformed::yes(DataSourceExec::from_data_source(scan) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(narrowed.data)
}

fn and(left: Arc<dyn PhysicalExpr>, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, Operator::And, right))
}
