//! Subqueries from where DataFusion makes no join of them to a projection below.

use super::rule::is_uncorrelated;
use datafusion::common::alias::AliasGenerator;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult};
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, LogicalPlanBuilder, Sort, Window};
use std::sync::Arc;

/// What is evaluated below a node, for each row of an input of it.
struct Moved<'a> {
    aliases: &'a AliasGenerator,
    columns: Vec<Expr>,
    names: Vec<String>,
}

impl<'a> Moved<'a> {
    fn new(aliases: &'a AliasGenerator) -> Self {
        Self { aliases, columns: Vec::new(), names: Vec::new() }
    }

    /// The column that takes the place of a subquery.
    fn column(&mut self, subquery: Expr) -> Expr {
        let name = self.aliases.next("__scalar_value");
        self.columns.push(subquery.alias(name.as_str()));
        let column = Expr::Column(Column::new_unqualified(name.as_str()));
        self.names.push(name);
        column
    }

    /// The expression with columns for its subqueries.
    fn out_of(&mut self, expr: Expr) -> DfResult<Expr> {
        let replaced = expr.transform_down(|part| {
            Ok(match is_uncorrelated(&part) {
                true => Transformed::yes(self.column(part)),
                false => Transformed::no(part),
            })
        })?;
        Ok(replaced.data)
    }

    fn out_of_all(&mut self, exprs: Vec<Expr>) -> DfResult<Vec<Expr>> {
        exprs.into_iter().map(|expr| self.out_of(expr)).collect()
    }

    /// The input with its new columns behind the others.
    fn below(&mut self, input: Arc<LogicalPlan>) -> DfResult<Arc<LogicalPlan>> {
        if self.columns.is_empty() {
            return Ok(input);
        }
        let columns = input.schema().columns().into_iter().map(Expr::Column);
        let columns: Vec<Expr> = columns.chain(self.columns.drain(..)).collect();
        Ok(Arc::new(LogicalPlanBuilder::from(input).project(columns)?.build()?))
    }
}

pub(super) fn sort(sort: Sort, aliases: &AliasGenerator) -> DfResult<LogicalPlan> {
    let schema = Arc::clone(sort.input.schema());
    let mut moved = Moved::new(aliases);
    let by = sort.expr.into_iter().map(|mut by| {
        by.expr = moved.out_of(by.expr)?;
        Ok(by)
    });
    let expr = by.collect::<DfResult<Vec<_>>>()?;
    let input = moved.below(sort.input)?;
    as_before(LogicalPlan::Sort(Sort { expr, input, fetch: sort.fetch }), &schema, &moved.names)
}

pub(super) fn aggregate(aggregate: Aggregate, aliases: &AliasGenerator) -> DfResult<LogicalPlan> {
    let mut moved = Moved::new(aliases);
    let groups = moved.out_of_all(aggregate.group_expr)?;
    let values = moved.out_of_all(aggregate.aggr_expr)?;
    let above = Aggregate::try_new(moved.below(aggregate.input)?, groups, values)?;
    // It gives what it is asked for only.
    as_before(LogicalPlan::Aggregate(above), &aggregate.schema, &[])
}

pub(super) fn window(window: Window, aliases: &AliasGenerator) -> DfResult<LogicalPlan> {
    let mut moved = Moved::new(aliases);
    let windows = moved.out_of_all(window.window_expr)?;
    let above = Window::try_new(windows, moved.below(window.input)?)?;
    as_before(LogicalPlan::Window(above), &window.schema, &moved.names)
}

/// A subquery goes to the side that the rest of its operand is of, so that a comparison of both sides stays one.
pub(super) fn join(join: Join, aliases: &AliasGenerator) -> DfResult<LogicalPlan> {
    let mut sides = Sides {
        schemas: [Arc::clone(join.left.schema()), Arc::clone(join.right.schema())],
        moved: [Moved::new(aliases), Moved::new(aliases)],
    };
    let [left, right] = &mut sides.moved;
    let on = join.on.into_iter().map(|(one, other)| Ok((left.out_of(one)?, right.out_of(other)?)));
    let on = on.collect::<DfResult<Vec<_>>>()?;
    let filter = join.filter.map(|filter| sides.out_of(filter, LEFT)).transpose()?;
    let [mut left, mut right] = sides.moved;
    let above = Join::try_new(
        left.below(join.left)?,
        right.below(join.right)?,
        on,
        filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    let names = [left.names, right.names].concat();
    as_before(LogicalPlan::Join(above), &join.schema, &names)
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

struct Sides<'a> {
    schemas: [Arc<DFSchema>; 2],
    moved: [Moved<'a>; 2],
}

impl Sides<'_> {
    fn out_of(&mut self, expr: Expr, side: usize) -> DfResult<Expr> {
        if is_uncorrelated(&expr) {
            return Ok(self.moved[side].column(expr));
        }
        let side = self.side_of(&expr).unwrap_or(side);
        let replaced = expr.map_children(|part| self.out_of(part, side).map(Transformed::yes))?;
        Ok(replaced.data)
    }

    /// `None` for both and for neither.
    fn side_of(&self, expr: &Expr) -> Option<usize> {
        let columns = expr.column_refs();
        let is_of = |side: usize| columns.iter().all(|column| self.schemas[side].has_column(column));
        match (is_of(LEFT), is_of(RIGHT)) {
            (true, false) => Some(LEFT),
            (false, true) => Some(RIGHT),
            _ => None,
        }
    }
}

/// The plan with the columns that it has had, and without those that are called `added`.
fn as_before(plan: LogicalPlan, before: &DFSchema, added: &[String]) -> DfResult<LogicalPlan> {
    let columns = plan.schema().iter().filter(|(_, field)| !added.contains(field.name()));
    let columns = columns.zip(before.iter()).map(|((qualifier, field), (qualifier_before, before))| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        match qualifier == qualifier_before && field.name() == before.name() {
            true => column,
            false => column.alias_qualified(qualifier_before.cloned(), before.name()),
        }
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}
