//! `TUMBLE`, `HOP` and `DEDUPLICATE` as table functions, rewritten to plain SQL.
//!
//! ```text
//! TUMBLE(t, ts, INTERVAL '1 minute')  ─▶  (SELECT t.*, date_bin(…, t.ts) AS window_start,
//!                                                 date_bin(…, t.ts) + … AS window_end FROM t) AS t
//! HOP(t, ts, slide, size)             ─▶  the same with one row for each window that holds it
//! DEDUPLICATE(t, key, …)              ─▶  batch: one row a key, the earliest; stream: t itself
//! ```
//! In a stream the planner removes duplicates itself, within the watermark, and finds in [`WindowInfo`] which
//! keys it must remember.

use super::spark;
use crate::dialect::{interval_ms, normalize, parse_query};
use crate::name::quote;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, TableAlias,
    TableFactor, TableFunctionArgs, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;
use tidemill_core::{Code, Error, Result};

/// A row of a hopping window is copied once for each window that holds it; beyond this it is a mistake.
const MOST_WINDOWS: i64 = 1_000;

/// What the rewritten query is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteFor {
    Batch,
    Stream,
}

/// One rewritten table function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowInfo {
    pub kind: WindowKind,
    /// The event time by which rows come into windows; `None` for a bare `DEDUPLICATE`.
    pub time_column: Option<String>,
    /// The columns that make a duplicate.
    pub dedup_key: Option<Vec<String>>,
    /// The table or source, as it was named, normalised: one to three parts.
    pub source: Vec<String>,
    /// The name by which the query refers to the result.
    pub alias: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    Tumble {
        size_ms: i64,
    },
    Hop {
        size_ms: i64,
        slide_ms: i64,
    },
    /// A bare `DEDUPLICATE`.
    None,
}

/// Rewrites every window function of the query, subqueries included, and tells what it found, in the order
/// of their appearance.
pub fn rewrite_windows(query: &mut Query, to: RewriteFor) -> Result<Vec<WindowInfo>> {
    let mut rewriter = Rewriter { to, found: Vec::new() };
    match VisitMut::visit(query, &mut rewriter) {
        ControlFlow::Continue(()) => Ok(rewriter.found),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Rewriter {
    to: RewriteFor,
    found: Vec<WindowInfo>,
}

impl VisitorMut for Rewriter {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        flow(spark::rewrite(query))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        flow(self.table_factor(factor))
    }
}

pub(super) fn flow(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

impl Rewriter {
    fn table_factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let TableFactor::Table { name, alias, args: Some(args), .. } = factor else { return Ok(()) };
        let Some(function) = single_name(name) else { return Ok(()) };
        let function = function.to_uppercase();
        if function == "SESSION" {
            return Err(Error::new(Code::Unsupported, "SESSION windows are not supported")
                .hint("TUMBLE(table, time, size) and HOP(table, time, slide, size) are"));
        }
        if !matches!(function.as_str(), "TUMBLE" | "HOP" | "DEDUPLICATE") {
            return Ok(());
        }
        let args = positional(&function, args)?;
        let (info, body) = match function.as_str() {
            "TUMBLE" => self.tumble(args, alias.as_ref())?,
            "HOP" => self.hop(args, alias.as_ref())?,
            _ => self.deduplicate(args, alias.as_ref())?,
        };
        let alias = alias.take().unwrap_or_else(|| TableAlias {
            explicit: true,
            name: Ident::with_quote('"', &info.alias),
            columns: Vec::new(),
            at: None,
        });
        *factor = TableFactor::Derived {
            lateral: false,
            subquery: parse_query(&body)?,
            alias: Some(alias),
            sample: None,
        };
        self.found.push(info);
        Ok(())
    }

    fn tumble(&self, args: Vec<&Expr>, alias: Option<&TableAlias>) -> Result<(WindowInfo, String)> {
        let [table, time, size] = args.as_slice() else {
            return Err(wrong_arguments("TUMBLE(table, time, size)"));
        };
        let input = Input::new(table, Some(time), alias)?;
        let size_ms = window_ms("size", size)?;
        let (from, time) = (input.from(self.to), input.time());
        let bin = format!("date_bin({}, {time})", interval(size_ms));
        let body = format!(
            "SELECT {alias}.*, {bin} AS window_start, {bin} + {size} AS window_end FROM {from}",
            alias = quote(&input.alias),
            size = interval(size_ms),
        );
        Ok((input.info(WindowKind::Tumble { size_ms }), body))
    }

    fn hop(&self, args: Vec<&Expr>, alias: Option<&TableAlias>) -> Result<(WindowInfo, String)> {
        let [table, time, slide, size] = args.as_slice() else {
            return Err(wrong_arguments("HOP(table, time, slide, size)"));
        };
        let input = Input::new(table, Some(time), alias)?;
        let (slide_ms, size_ms) = (window_ms("slide", slide)?, window_ms("size", size)?);
        let windows = (size_ms + slide_ms - 1) / slide_ms;
        if windows > MOST_WINDOWS {
            let message = format!("HOP: each row would be in {windows} windows");
            return Err(Error::new(Code::Unsupported, message)
                .hint(format!("at most {MOST_WINDOWS}; take a longer slide")));
        }
        let (from, time) = (input.from(self.to), input.time());
        // The newest window that can hold the row begins at its bin, the others a slide earlier each.
        let starts: Vec<String> = (0..windows)
            .map(|n| format!("date_bin({}, {time}) - {}", interval(slide_ms), interval(n * slide_ms)))
            .collect();
        let body = format!(
            "SELECT {alias}.*, {alias}.window_start + {size} AS window_end FROM \
             (SELECT {alias}.*, unnest([{starts}]) AS window_start FROM {from}) AS {alias} \
             WHERE {time} < {alias}.window_start + {size}",
            alias = quote(&input.alias),
            size = interval(size_ms),
            starts = starts.join(", "),
        );
        Ok((input.info(WindowKind::Hop { size_ms, slide_ms }), body))
    }

    fn deduplicate(&self, args: Vec<&Expr>, alias: Option<&TableAlias>) -> Result<(WindowInfo, String)> {
        let input = Input::deduplicated(&args, None, alias)?;
        let body = format!("SELECT {}.* FROM {}", quote(&input.alias), input.from(self.to));
        Ok((input.info(WindowKind::None), body))
    }
}

/// What a window function reads.
struct Input {
    source: Vec<String>,
    alias: String,
    time_column: Option<String>,
    dedup_key: Option<Vec<String>>,
}

impl Input {
    fn new(table: &Expr, time: Option<&Expr>, alias: Option<&TableAlias>) -> Result<Self> {
        let time_column = time.map(column).transpose()?;
        if let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = table
            && single_name(name).is_some_and(|name| name.eq_ignore_ascii_case("deduplicate"))
        {
            let args =
                list.args.iter().map(|arg| argument("DEDUPLICATE", arg)).collect::<Result<Vec<_>>>()?;
            return Self::deduplicated(&args, time_column, alias);
        }
        let source = table_parts(table)?;
        let alias = match alias {
            Some(alias) => normalize(alias.name.clone()),
            None => source.last().cloned().unwrap_or_default(),
        };
        Ok(Self { source, alias, time_column, dedup_key: None })
    }

    fn deduplicated(args: &[&Expr], time_column: Option<String>, alias: Option<&TableAlias>) -> Result<Self> {
        let [table, keys @ ..] = args else { return Err(wrong_arguments("DEDUPLICATE(table, key, …)")) };
        if keys.is_empty() {
            return Err(wrong_arguments("DEDUPLICATE(table, key, …)"));
        }
        let keys = keys.iter().map(|key| column(key)).collect::<Result<Vec<_>>>()?;
        Ok(Self { time_column, dedup_key: Some(keys), ..Self::new(table, None, alias)? })
    }

    fn time(&self) -> String {
        let column = self.time_column.as_deref().unwrap_or_default();
        format!("{}.{}", quote(&self.alias), quote(column))
    }

    /// The FROM item, under the alias.
    fn from(&self, to: RewriteFor) -> String {
        let table: Vec<String> = self.source.iter().map(|part| quote(part)).collect();
        let (table, alias) = (table.join("."), quote(&self.alias));
        match &self.dedup_key {
            Some(key) if to == RewriteFor::Batch => {
                let key: Vec<String> = key.iter().map(|column| quote(column)).collect();
                let key = key.join(", ");
                // Of several with one key the earliest counts, as in a stream that is in order.
                let then = self.time_column.iter().map(|time| format!(", {}", quote(time)));
                let then: String = then.collect();
                format!("(SELECT DISTINCT ON ({key}) * FROM {table} ORDER BY {key}{then}) AS {alias}")
            }
            _ => format!("{table} AS {alias}"),
        }
    }

    fn info(self, kind: WindowKind) -> WindowInfo {
        let Self { source, alias, time_column, dedup_key } = self;
        WindowInfo { kind, time_column, dedup_key, source, alias }
    }
}

/// A name of one part, as it was written.
pub(super) fn single_name(name: &ObjectName) -> Option<&str> {
    match name.0.as_slice() {
        [part] => {
            part.as_ident().filter(|ident| ident.quote_style.is_none()).map(|ident| ident.value.as_str())
        }
        _ => None,
    }
}

fn positional<'a>(function: &str, args: &'a TableFunctionArgs) -> Result<Vec<&'a Expr>> {
    args.args.iter().map(|arg| argument(function, arg)).collect()
}

pub(super) fn argument<'a>(function: &str, arg: &'a FunctionArg) -> Result<&'a Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        other => Err(Error::new(Code::InvalidStatement, format!("{function}: `{other}` is no argument"))
            .hint("arguments are given by position")),
    }
}

fn table_parts(table: &Expr) -> Result<Vec<String>> {
    match table {
        Expr::Identifier(ident) => Ok(vec![normalize(ident.clone())]),
        Expr::CompoundIdentifier(parts) => Ok(parts.iter().cloned().map(normalize).collect()),
        other => Err(Error::new(Code::Unsupported, format!("`{other}` is no table's name")).hint(
            "name a table, view or source, or write DEDUPLICATE(table, key, …); conditions belong in WHERE",
        )),
    }
}

/// A column of the table, whose name may be qualified by it.
fn column(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Identifier(ident) => Ok(normalize(ident.clone())),
        Expr::CompoundIdentifier(parts) if !parts.is_empty() => Ok(normalize(parts[parts.len() - 1].clone())),
        other => Err(Error::new(Code::InvalidStatement, format!("`{other}` is no column"))
            .hint("a window's time and a duplicate's key are plain columns of the table")),
    }
}

fn window_ms(what: &str, expr: &Expr) -> Result<i64> {
    match interval_ms(expr)? {
        0 => Err(Error::new(Code::InvalidStatement, format!("a window's {what} is longer than nothing"))),
        ms => Ok(ms),
    }
}

fn interval(ms: i64) -> String {
    format!("INTERVAL '{ms} milliseconds'")
}

fn wrong_arguments(usage: &str) -> Error {
    Error::new(Code::InvalidStatement, "a window function has the wrong arguments").hint(usage)
}
