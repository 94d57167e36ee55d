//! What conditions may say with subqueries. A change asks a condition twice, which rows pass and which do not, and
//! both queries must agree on every row, also where NULL is compared.
//!
//! DataFusion plans `IN (SELECT …)` exactly only where it alone is a condition. Elsewhere, as within OR, NOT or
//! `… IS NOT TRUE`, a NULL counts for it as false, and the query must give a column of a table. So what is asked
//! there is written with EXISTS, which is never NULL:
//!
//! ```text
//! x IN (q)  =  EXISTS (q gives x) OR (NULL where q gives NULL, or where x is NULL and q gives anything)
//! ```

use crate::dialect::parse_expr;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Query, SelectItem, SetExpr, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;
use tidemill_core::{Code, Error, Result};

/// What a query within IN is called, and its column.
const QUERY: &str = "__in";
const VALUE: &str = "__value";

/// The condition in words that mean the same as a filter, and the opposite of it as `(…) IS NOT TRUE`.
pub(super) fn filter(condition: &str) -> Result<String> {
    if !mentions_subquery(condition) {
        return Ok(condition.to_owned());
    }
    let mut expr = parse_expr(condition)?;
    as_filter(&mut expr)?;
    Ok(expr.to_string())
}

/// Refuses what asks whether rows are in a query, where no row is filtered but a value is computed.
pub(super) fn demand_value(what: &str, text: &str) -> Result<()> {
    let found = find(text, |expr| {
        matches!(
            expr,
            Expr::InSubquery { .. } | Expr::Exists { .. } | Expr::AnyOp { .. } | Expr::AllOp { .. }
        )
    })?;
    let Some(found) = found else { return Ok(()) };
    Err(Error::new(Code::Unsupported, format!("{what}: `{found}`"))
        .hint("put it into WHERE, or into the source of a MERGE as one more column"))
}

/// Refuses every subquery.
pub(super) fn demand_plain(what: &str, text: &str) -> Result<()> {
    let subquery =
        |expr: &Expr| matches!(expr, Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. });
    let Some(found) = find(text, subquery)? else { return Ok(()) };
    Err(Error::new(Code::Unsupported, format!("{what}: `{found}`"))
        .hint("put it into the source, as USING (SELECT … WHERE …) or as one more column"))
}

/// Whether there may be one; a mere word in a string does no harm.
pub(super) fn mentions_subquery(text: &str) -> bool {
    text.to_uppercase().contains("SELECT")
}

/// Of the expression itself, not of its subqueries.
fn find(text: &str, wanted: fn(&Expr) -> bool) -> Result<Option<Expr>> {
    if !mentions_subquery(text) {
        return Ok(None);
    }
    let mut found = None;
    let mut each = Each {
        within: 0,
        change: |expr: &mut Expr| -> Result<()> {
            if found.is_none() && wanted(expr) {
                found = Some(expr.clone());
            }
            Ok(())
        },
    };
    each.visit(&mut parse_expr(text)?)?;
    Ok(found)
}

/// Where NULL does as well as false.
fn as_filter(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::Nested(inner) => as_filter(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            as_filter(left)?;
            as_filter(right)
        }
        Expr::InSubquery { subquery, negated: false, .. } => {
            if !gives_column(subquery) {
                **subquery = named(subquery)?;
            }
            Ok(())
        }
        other => Each { within: 0, change: as_value }.visit(other),
    }
}

/// Where NULL and false differ.
fn as_value(expr: &mut Expr) -> Result<()> {
    let Expr::InSubquery { expr: value, subquery, negated } = expr else { return Ok(()) };
    let rows = format!("FROM ({subquery}) AS {QUERY}({VALUE})");
    let count = |filter: &str| format!("(SELECT count(*) {rows}{filter})");
    let text = format!(
        "({}(EXISTS (SELECT 1 {rows} WHERE {QUERY}.{VALUE} = ({value})) \
         OR CASE WHEN {} > 0 OR (({value}) IS NULL AND {} > 0) THEN NULL ELSE false END))",
        if *negated { "NOT " } else { "" },
        count(&format!(" WHERE {QUERY}.{VALUE} IS NULL")),
        count(""),
    );
    *expr = parse_expr(&text)?;
    Ok(())
}

fn named(query: &Query) -> Result<Query> {
    let text = format!("SELECT {QUERY}.{VALUE} FROM ({query}) AS {QUERY}({VALUE})");
    crate::dialect::parse_query(&text).map(|query| *query)
}

/// Whether a query gives a column as it is.
fn gives_column(query: &Query) -> bool {
    let SetExpr::Select(select) = query.body.as_ref() else { return false };
    let [SelectItem::UnnamedExpr(item)] = select.projection.as_slice() else { return false };
    matches!(item, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// Changes every part of an expression from the inside out, and leaves its subqueries alone.
struct Each<F> {
    /// How many queries this is in.
    within: usize,
    change: F,
}

impl<F: FnMut(&mut Expr) -> Result<()>> Each<F> {
    fn visit(&mut self, expr: &mut Expr) -> Result<()> {
        match VisitMut::visit(expr, self) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(*error),
        }
    }
}

impl<F: FnMut(&mut Expr) -> Result<()>> VisitorMut for Each<F> {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Self::Break> {
        self.within += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Self::Break> {
        self.within -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        match if self.within == 0 { (self.change)(expr) } else { Ok(()) } {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}
