//! Spark's everyday functions that DataFusion has under another name, or says in other words.
//!
//! ```text
//! SELECT year(d), explode(a) FROM t  ─▶  SELECT date_part('year', d) AS "year(d)", unnest(a) AS "explode(a)" FROM t
//! ```
//! Two tables say it: [`RENAMED`] where only the name differs, so that DISTINCT, FILTER and OVER stay with the call,
//! and [`WRITTEN`] where the arguments go elsewhere. Both are put into the syntax of a query before it is planned.
//! A user's function of such a name goes first, and no name of DataFusion's is among them.

use super::macros::{Inliner, Macros, flow, visit};
use super::patterns::{as_chrono, json_path};
use crate::dialect::{normalize, parse_expr};
use crate::name::DEFAULT_SCHEMA;
use crate::statement::{FunctionDef, Statement, parse};
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    Query, Select, SelectItem, Value, VisitorMut,
};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;
use tidemill_core::{Code, Error, Result};

/// Spark's name and DataFusion's, for the same arguments.
const RENAMED: &[(&str, &str)] = &[
    ("approx_count_distinct", "approx_distinct"),
    ("approx_percentile", "approx_percentile_cont"),
    ("array_size", "array_length"),
    ("ceiling", "ceil"),
    ("endswith", "ends_with"),
    ("every", "bool_and"),
    ("explode", "unnest"),
    ("first", "first_value"),
    ("last", "last_value"),
    ("lcase", "lower"),
    ("len", "length"),
    ("listagg", "string_agg"),
    ("percentile", "percentile_cont"),
    ("percentile_approx", "approx_percentile_cont"),
    ("rlike", "regexp_like"),
    ("sequence", "generate_series"),
    ("sign", "signum"),
    ("some", "bool_or"),
    ("startswith", "starts_with"),
    ("std", "stddev"),
    ("to_unix_timestamp", "to_unixtime"),
    ("ucase", "upper"),
    ("unix_timestamp", "to_unixtime"),
    ("variance", "var_samp"),
];

/// Functions as CREATE MACRO has them; those of one name differ in the number of their parameters.
const WRITTEN: &[&str] = &[
    "add_months(d, n) AS add_months(CAST(d AS DATE), CAST(n AS INT))",
    "count_if(c) AS count(*) FILTER (WHERE c)",
    "date(d) AS CAST(d AS DATE)",
    "date_add(d, n) AS date_add(CAST(d AS DATE), CAST(n AS INT))",
    "date_sub(d, n) AS date_sub(CAST(d AS DATE), CAST(n AS INT))",
    "day(d) AS date_part('day', d)",
    "dayofmonth(d) AS date_part('day', d)",
    "dayofweek(d) AS CAST(date_part('dow', d) + 1 AS INT)",
    "dayofyear(d) AS date_part('doy', d)",
    "format_number(x, n) AS format_string('%,.' || n || 'f', CAST(x AS DOUBLE))",
    "isnotnull(x) AS x IS NOT NULL",
    "isnull(x) AS x IS NULL",
    "locate(part, s) AS strpos(s, part)",
    "locate(part, s, n) AS \
     CASE strpos(substr(s, n), part) WHEN 0 THEN 0 ELSE strpos(substr(s, n), part) + n - 1 END",
    "max_by(x, y) AS last_value(x ORDER BY y NULLS FIRST)",
    "min_by(x, y) AS first_value(x ORDER BY y NULLS LAST)",
    "month(d) AS date_part('month', d)",
    // Whole months from a day to the same one or from a last day to another; else months have 31 days.
    "months_between(a, b) AS \
     CASE WHEN date_part('day', CAST(a AS TIMESTAMP)) = date_part('day', CAST(b AS TIMESTAMP)) \
     OR (CAST(a AS DATE) = last_day(CAST(a AS DATE)) AND CAST(b AS DATE) = last_day(CAST(b AS DATE))) \
     THEN CAST((date_part('year', CAST(a AS TIMESTAMP)) - date_part('year', CAST(b AS TIMESTAMP))) * 12 \
     + date_part('month', CAST(a AS TIMESTAMP)) - date_part('month', CAST(b AS TIMESTAMP)) AS DOUBLE) \
     ELSE round((date_part('year', CAST(a AS TIMESTAMP)) - date_part('year', CAST(b AS TIMESTAMP))) * 12 \
     + date_part('month', CAST(a AS TIMESTAMP)) - date_part('month', CAST(b AS TIMESTAMP)) \
     + ((date_part('day', CAST(a AS TIMESTAMP)) - date_part('day', CAST(b AS TIMESTAMP))) * 86400 \
     + (date_part('epoch', CAST(a AS TIMESTAMP)) - date_part('epoch', CAST(CAST(a AS DATE) AS TIMESTAMP))) \
     - (date_part('epoch', CAST(b AS TIMESTAMP)) - date_part('epoch', CAST(CAST(b AS DATE) AS TIMESTAMP)))) \
     / 2678400.0, 8) END",
    "quarter(d) AS date_part('quarter', d)",
    // One more pair of parentheses, so that there is a group for the whole match.
    "regexp_extract(s, pattern) AS CASE WHEN s IS NOT NULL AND pattern IS NOT NULL \
     THEN coalesce(regexp_match(s, concat('(', pattern, ')'))[2], '') END",
    "regexp_extract(s, pattern, n) AS CASE WHEN s IS NOT NULL AND pattern IS NOT NULL \
     THEN coalesce(regexp_match(s, concat('(', pattern, ')'))[n + 1], '') END",
    "sort_array(list) AS array_sort(list)",
    "sort_array(list, up) AS \
     CASE WHEN up THEN array_sort(list) ELSE array_sort(list, 'DESC', 'NULLS LAST') END",
    // A character of Unicode's private use stands between the parts meanwhile.
    "split(s, pattern) AS string_to_array(regexp_replace(s, pattern, chr(57344), 'g'), chr(57344))",
    "unix_timestamp() AS to_unixtime(now())",
    "weekofyear(d) AS date_part('week', d)",
    "year(d) AS date_part('year', d)",
];

/// Functions with patterns of Java's for dates and times behind their first argument.
const WITH_PATTERNS: &[&str] =
    &["date_format", "to_date", "to_timestamp", "to_unix_timestamp", "to_unixtime", "unix_timestamp"];

const JSON_OBJECT: &str = "get_json_object";

/// [`WRITTEN`] by name.
static BODIES: LazyLock<BTreeMap<String, Vec<FunctionDef>>> = LazyLock::new(|| {
    let mut bodies: BTreeMap<String, Vec<FunctionDef>> = BTreeMap::new();
    for text in WRITTEN {
        // A test sees to it that all of them can be read.
        if let Ok(Statement::CreateFunction(create)) = parse(&format!("CREATE MACRO {text}"), DEFAULT_SCHEMA)
        {
            bodies.entry(create.function.name.clone()).or_default().push(create.function);
        }
    }
    bodies
});

/// Name, usage and meaning of each function, as SHOW FUNCTIONS has them.
pub fn everyday() -> Vec<(String, String, String)> {
    let renamed = RENAMED
        .iter()
        .map(|(name, ours)| ((*name).to_owned(), format!("{name}(…)"), format!("{name}(…) AS {ours}(…)")));
    let written = BODIES.values().flatten();
    let written = written.map(|body| (body.name.clone(), body.usage(), body.to_string()));
    let json = "get_json_object(text, '$.a.b') AS json_tuple(json_tuple(text, 'a')['c0'], 'b')['c0']";
    let json = (JSON_OBJECT.to_owned(), "get_json_object(text, path)".to_owned(), json.to_owned());
    renamed.chain(written).chain([json]).collect()
}

/// Puts DataFusion's words in the place of Spark's, subqueries included.
pub(crate) fn rewrite_everyday(query: &mut Query) -> Result<()> {
    visit(query, &mut Everyday)
}

struct Everyday;

impl VisitorMut for Everyday {
    type Break = Box<Error>;

    /// A column keeps the name of the call that it was.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Ok(Some(_)) = rewritten(expr)
            {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    // After its children: what was put in is not looked at again, and may call the function of the same name.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        flow(rewritten(expr).map(|found| {
            if let Some(found) = found {
                *expr = found;
            }
        }))
    }
}

/// What stands for the expression; `None` where it stays.
fn rewritten(expr: &Expr) -> Result<Option<Expr>> {
    match expr {
        Expr::Function(call) => called(call),
        Expr::RLike { negated, expr, pattern, .. } => {
            let not = if *negated { "NOT " } else { "" };
            parse_expr(&format!("({not}regexp_like({expr}, {pattern}))")).map(Some)
        }
        _ => Ok(None),
    }
}

fn called(call: &Function) -> Result<Option<Expr>> {
    let [ObjectNamePart::Identifier(name)] = call.name.0.as_slice() else { return Ok(None) };
    let name = normalize(name.clone());
    if name == JSON_OBJECT {
        return json_object(call).map(Some);
    }
    let bodies = BODIES.get(&name).map(Vec::as_slice).unwrap_or_default();
    if let Some(body) = bodies.iter().find(|body| body.parameters.len() == arguments(call).len()) {
        let none = Macros::default();
        return Inliner::over(&none).scalar(body, call).map(Some);
    }
    let renamed = RENAMED.iter().find(|(spark, _)| *spark == name);
    if renamed.is_none() && !bodies.is_empty() {
        let usages: Vec<String> = bodies.iter().map(FunctionDef::usage).collect();
        let message = format!("`{call}`: {name} does not take {} arguments", arguments(call).len());
        return Err(Error::new(Code::InvalidStatement, message).hint(usages.join(" or ")));
    }
    let mut new = call.clone();
    let translated = WITH_PATTERNS.contains(&name.as_str()) && translate(&mut new)?;
    if let Some((_, ours)) = renamed {
        new.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(*ours))]);
    }
    Ok((translated || renamed.is_some()).then_some(Expr::Function(new)))
}

fn arguments(call: &Function) -> &[FunctionArg] {
    match &call.args {
        FunctionArguments::List(list) => &list.args,
        _ => &[],
    }
}

/// True if there were patterns of Java's. Those of strftime's, which DataFusion reads, have a `%`.
fn translate(call: &mut Function) -> Result<bool> {
    let FunctionArguments::List(list) = &mut call.args else { return Ok(false) };
    let mut found = false;
    for argument in list.args.iter_mut().skip(1) {
        if let Some(text) = literal(argument)
            && !text.contains('%')
        {
            let pattern = Value::SingleQuotedString(as_chrono(text)?);
            *argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::value(pattern)));
            found = true;
        }
    }
    Ok(found)
}

fn json_object(call: &Function) -> Result<Expr> {
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(text)), path] = arguments(call) else {
        let message = format!("`{call}`: {JSON_OBJECT} takes two arguments");
        return Err(Error::new(Code::InvalidStatement, message).hint("get_json_object(text, '$.a.b')"));
    };
    let Some(names) = literal(path).and_then(json_path) else {
        let message = format!("`{path}` as a path of {JSON_OBJECT}");
        return Err(Error::new(Code::Unsupported, message)
            .hint("a text of names, such as '$.a.b'; declare the column as STRUCT or LIST for more"));
    };
    let within = |text: String, name: &str| format!("json_tuple({text}, '{name}')['c0']");
    parse_expr(&names.into_iter().fold(text.to_string(), within))
}

fn literal(argument: &FunctionArg) -> Option<&str> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::parse_query;
    use crate::plan_query;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    fn rewrite(sql: &str) -> Result<String> {
        let mut query = parse_query(sql)?;
        rewrite_everyday(&mut query)?;
        Ok(query.to_string())
    }

    async fn answer(sql: &str) -> String {
        let context = SessionContext::new();
        let plan = plan_query(&context.state(), parse_query(sql).unwrap()).await;
        let plan = plan.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        let table = pretty_format_batches(&batches).unwrap().to_string();
        let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
        let cells = |line: &str| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            cells.join(" ")
        };
        rows.map(cells).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn every_function_can_be_read_and_is_in_the_book() {
        assert_eq!(BODIES.values().map(Vec::len).sum::<usize>(), WRITTEN.len());
        let book = include_str!("../../../docs/sql.md");
        let missing: Vec<String> = everyday()
            .into_iter()
            .map(|(name, ..)| name)
            .filter(|name| !book.contains(&format!("`{name}`")))
            .collect();
        assert!(missing.is_empty(), "docs/sql.md does not name {missing:?}");
    }

    #[test]
    fn no_name_of_datafusions_is_taken() {
        let state = SessionContext::new().state();
        for (name, ..) in everyday() {
            assert!(!state.scalar_functions().contains_key(&name), "{name}");
            assert!(!state.aggregate_functions().contains_key(&name), "{name}");
            assert!(!state.window_functions().contains_key(&name), "{name}");
        }
        for (_, ours) in RENAMED.iter().filter(|(_, ours)| *ours != "unnest") {
            let known = state.scalar_functions().contains_key(*ours)
                || state.aggregate_functions().contains_key(*ours)
                || state.window_functions().contains_key(*ours);
            assert!(known, "{ours}");
        }
    }

    #[tokio::test]
    async fn dates_are_taken_apart() {
        let sql = "SELECT year(d), month(d), day(d), dayofmonth(d), dayofweek(d), dayofyear(d), weekofyear(d), \
                   quarter(d), date('2009-07-30') = d FROM (VALUES (DATE '2009-07-30')) AS t(d)";
        assert_eq!(answer(sql).await, "2009 7 30 30 5 211 31 3 true");
        let grouped = "SELECT year(d) AS y, count_if(n > 1) AS n, max_by(n, d) AS newest FROM \
                       (VALUES (DATE '2009-07-30', 1), (DATE '2009-08-01', 3), (DATE '2010-01-01', 2)) AS t(d, n) \
                       WHERE month(d) > 0 GROUP BY year(d) HAVING year(d) > 2000 ORDER BY year(d)";
        assert_eq!(answer(grouped).await, "2009 1 3; 2010 1 2");
        let distinct = "SELECT DISTINCT year(d) FROM (VALUES (DATE '2010-01-01'), (DATE '2009-07-30')) AS t(d) \
                        ORDER BY \"year(d)\"";
        assert_eq!(answer(distinct).await, "2009; 2010");
    }

    #[tokio::test]
    async fn texts_are_taken_apart() {
        let sql = "SELECT regexp_extract('100-200', '(\\d+)-(\\d+)', 2), regexp_extract('100-200', '(\\d+)-', 0), \
                   regexp_extract('x', '(\\d+)') = '', regexp_extract(NULL, 'x') IS NULL, \
                   locate('b', 'abcb'), locate('b', 'abcb', 3), ucase('a'), startswith('ab', 'a'), \
                   'abc' RLIKE 'b', 'abc' NOT RLIKE 'b', isnull(NULL)";
        assert_eq!(answer(sql).await, "200 100- true true 2 4 A true true false true");
        let parts =
            "SELECT part FROM (SELECT explode(split('one1two22three', '[0-9]+')) AS part) ORDER BY part";
        assert_eq!(answer(parts).await, "one; three; two");
        assert_eq!(answer("SELECT split('a.b.', '[.]')").await, "[a, b, ]");
    }

    #[tokio::test]
    async fn patterns_of_javas_are_understood() {
        let sql = "SELECT date_format(TIMESTAMP '2024-03-05 13:45:06', 'dd.MM.yyyy HH:mm'), \
                   to_date('05/03/2024', 'dd/MM/yyyy') = DATE '2024-03-05', \
                   unix_timestamp('1970-01-02', 'yyyy-MM-dd'), date_format(DATE '2024-03-05', '%d')";
        assert_eq!(answer(sql).await, "05.03.2024 13:45 true 86400 05");
        let error = rewrite("SELECT date_format(d, 'yyyy-QQ') FROM t").unwrap_err();
        assert_eq!(error.code, Code::Unsupported);
        assert!(error.message.contains("`QQ`"), "{error}");
    }

    #[test]
    fn calls_keep_their_names_and_windows() {
        let text =
            rewrite("SELECT first(v) OVER (ORDER BY w), get_json_object(j, '$.a.b') AS b FROM t").unwrap();
        assert!(
            text.contains("first_value(v) OVER (ORDER BY w) AS \"first(v) OVER (ORDER BY w)\""),
            "{text}"
        );
        assert!(text.contains("json_tuple(json_tuple(j, 'a')['c0'], 'b')['c0'] AS b"), "{text}");
        assert_eq!(rewrite("SELECT upper(v) FROM t").unwrap(), "SELECT upper(v) FROM t");
        let code = |sql: &str| rewrite(sql).unwrap_err().code;
        assert_eq!(code("SELECT count_if(v) OVER () FROM t"), Code::Unsupported);
        assert_eq!(code("SELECT year(a, b) FROM t"), Code::InvalidStatement);
        assert_eq!(code("SELECT get_json_object(j, '$.a[0]') FROM t"), Code::Unsupported);
    }
}
