//! Spark's `window(ts, size [, slide])` in GROUP BY, rewritten to TUMBLE or HOP.
//!
//! ```text
//! SELECT window.start, count(*) FROM t GROUP BY window(ts, '1 minute')
//!   ─▶  SELECT window_start AS start, count(*) FROM TUMBLE(t, ts, '1 minute') GROUP BY window_start, window_end
//! ```

use super::windows::{argument, single_name};
use crate::dialect::{normalize, parse_expr, parse_query};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr,
    TableFactor, VisitMut, VisitorMut, visit_expressions_mut,
};
use std::ops::ControlFlow;
use tidemill_core::{Code, Error, Result};

pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    let windowed = body(&mut query.body)?;
    if windowed && let Some(order_by) = &mut query.order_by {
        // The order of a query over one SELECT may name its window.
        let _ = visit_expressions_mut(order_by, |expr| {
            replace(expr);
            ControlFlow::<()>::Continue(())
        });
    }
    Ok(())
}

fn body(set: &mut SetExpr) -> Result<bool> {
    match set {
        SetExpr::Select(select) => rewrite_select(select),
        SetExpr::SetOperation { left, right, .. } => {
            body(left)?;
            body(right)?;
            Ok(false)
        }
        // A nested query is visited by itself.
        _ => Ok(false),
    }
}

fn rewrite_select(select: &mut Select) -> Result<bool> {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(false) };
    let mut calls = groups.iter().enumerate().filter_map(|(n, expr)| call(expr).map(|args| (n, args)));
    let Some((position, args)) = calls.next() else { return Ok(false) };
    if calls.next().is_some() {
        return Err(Error::new(Code::Unsupported, "a query groups by one window only")
            .hint("put the second window in a query of its own"));
    }
    let [time, size @ ..] = args.as_slice() else { return Err(usage()) };
    // Spark has the size first, HOP the slide.
    let (function, intervals) = match size {
        [size] => ("TUMBLE", size.to_string()),
        [size, slide] => ("HOP", format!("{slide}, {size}")),
        _ => return Err(usage()),
    };
    let time = time.to_string();
    groups.splice(position..=position, [ident("window_start"), ident("window_end")]);

    let [from] = select.from.as_mut_slice() else { return Err(one_table()) };
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else { return Err(one_table()) };
    let alias = match alias {
        Some(alias) => alias.to_string(),
        None => name.0.last().map(ToString::to_string).unwrap_or_default(),
    };
    let windowed = parse_query(&format!("SELECT * FROM {function}({name}, {time}, {intervals}) {alias}"))?;
    if let SetExpr::Select(windowed) = *windowed.body
        && let Some(windowed) = windowed.from.into_iter().next()
    {
        from.relation = windowed.relation;
    }
    for item in &mut select.projection {
        name_item(item);
    }
    let mut replacer = Replacer;
    let _ = VisitMut::visit(&mut select.projection, &mut replacer);
    let _ = VisitMut::visit(&mut select.having, &mut replacer);
    Ok(true)
}

/// Keeps the column names that Spark would give: `window`, `start`, `end`.
fn name_item(item: &mut SelectItem) {
    if let SelectItem::UnnamedExpr(expr) = item {
        let alias = match part(expr) {
            Some(Part::Start) => "start",
            Some(Part::End) => "end",
            Some(Part::Whole) => "window",
            None => return,
        };
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', alias) };
    }
}

struct Replacer;

impl VisitorMut for Replacer {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        replace(expr);
        ControlFlow::Continue(())
    }
}

fn replace(expr: &mut Expr) {
    match part(expr) {
        Some(Part::Start) => *expr = ident("window_start"),
        Some(Part::End) => *expr = ident("window_end"),
        Some(Part::Whole) => {
            if let Ok(both) = parse_expr("named_struct('start', window_start, 'end', window_end)") {
                *expr = both;
            }
        }
        None => {}
    }
}

enum Part {
    Start,
    End,
    Whole,
}

/// Whether the expression is `window`, `window.start`, `window(…)` or `window(…).start`.
fn part(expr: &Expr) -> Option<Part> {
    let side = |ident: &Ident| match normalize(ident.clone()).as_str() {
        "start" => Some(Part::Start),
        "end" => Some(Part::End),
        _ => None,
    };
    let is_window = |ident: &Ident| normalize(ident.clone()) == "window";
    match expr {
        Expr::Identifier(name) if is_window(name) => Some(Part::Whole),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [name, field] if is_window(name) => side(field),
            _ => None,
        },
        Expr::CompoundFieldAccess { root, access_chain } if call(root).is_some() => {
            match access_chain.as_slice() {
                [AccessExpr::Dot(Expr::Identifier(field))] => side(field),
                _ => None,
            }
        }
        other => call(other).map(|_| Part::Whole),
    }
}

/// The arguments of a call of `window` that is no window function in the sense of OVER.
fn call(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Function(Function { name, args: FunctionArguments::List(list), over: None, .. })
            if single_name(name).is_some_and(|name| name.eq_ignore_ascii_case("window")) =>
        {
            list.args.iter().map(|arg| argument("window", arg).ok()).collect()
        }
        _ => None,
    }
}

fn ident(name: &str) -> Expr {
    Expr::Identifier(Ident::new(name))
}

fn usage() -> Error {
    Error::new(Code::InvalidStatement, "window() has the wrong arguments")
        .hint("window(time, '1 minute'), or window(time, '10 minutes', '5 minutes') with a slide")
}

fn one_table() -> Error {
    Error::new(Code::Unsupported, "window() needs a FROM that begins with one plain table")
        .hint("write FROM TUMBLE(table, time, INTERVAL '1 minute') and GROUP BY window_start")
}
