//! Functions written in SQL, called.

use super::{Macros, inline};
use crate::dialect::parse_query;
use crate::statement::{FunctionDef, Statement};
use crate::{TidemillTypes, parse, plan_query};
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

fn function(text: &str) -> FunctionDef {
    match parse(text, "public") {
        Ok(Statement::CreateFunction(create)) => create.function,
        other => panic!("{other:?}"),
    }
}

fn session(functions: &[&str]) -> SessionContext {
    let macros = Macros::default();
    functions.iter().for_each(|text| macros.put(function(text)));
    let config = SessionConfig::new()
        .with_default_catalog_and_schema("tidemill", "public")
        .with_extension(Arc::new(macros));
    let builder = SessionStateBuilder::new().with_default_features().with_config(config);
    SessionContext::new_with_state(builder.with_type_planner(Arc::new(TidemillTypes)).build())
}

async fn answer(functions: &[&str], sql: &str) -> Result<Vec<String>> {
    let context = session(functions);
    let table = "CREATE TABLE t AS SELECT column1 AS a, column2 AS b FROM (VALUES (1, 10), (2, 20), (3, 30))";
    context.sql(table).await.unwrap().collect().await.unwrap();
    let plan = plan_query(&context.state(), parse_query(sql)?).await?;
    let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let rows = table.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.join(" ")
    };
    Ok(rows.map(cells).collect())
}

const TIMES: &str =
    "CREATE FUNCTION times(x BIGINT, factor DOUBLE DEFAULT 1.5) RETURNS DOUBLE RETURN x * factor";

#[tokio::test]
async fn calls_become_bodies_with_their_arguments() {
    let rows =
        answer(&[TIMES], "SELECT times(a + 1), TIMES(a, 2) AS two FROM t WHERE times(a, factor => 1) > 2")
            .await;
    assert_eq!(rows.unwrap(), ["times(a + 1) two", "6.0 6.0"]);
    let grouped = "SELECT sum(times(a, 2)) AS s FROM t GROUP BY times(a, 0) ORDER BY times(a, 0)";
    assert_eq!(answer(&[TIMES], grouped).await.unwrap(), ["s", "12.0"]);
    // A body may aggregate, and call another function.
    let functions = [TIMES, "CREATE MACRO spread(v, factor := 2) AS times(max(v) - min(v), factor)"];
    assert_eq!(answer(&functions, "SELECT spread(b) AS s FROM t").await.unwrap(), ["s", "40.0"]);
}

#[tokio::test]
async fn table_functions_are_queries_with_parameters() {
    let above = "CREATE FUNCTION above(least INT) RETURNS TABLE (big BIGINT, n VARCHAR) \
                 RETURN SELECT b, a FROM t WHERE a > least";
    assert_eq!(answer(&[above], "SELECT f.n, big FROM above(1 + 1) AS f").await.unwrap(), ["n big", "3 30"]);
    let both = "CREATE MACRO both(x) AS TABLE WITH t AS (SELECT x AS a) SELECT * FROM t";
    assert_eq!(answer(&[both], "SELECT * FROM both(7)").await.unwrap(), ["a", "7"]);
}

#[tokio::test]
async fn wrong_calls_say_how_it_is_called() {
    for sql in
        ["SELECT times()", "SELECT times(1, 2, 3)", "SELECT times(1, fact => 2)", "SELECT times(1, x => 2)"]
    {
        let error = answer(&[TIMES], sql).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidStatement, "{sql}");
        assert_eq!(error.hint.as_deref(), Some("times(x BIGINT, factor DOUBLE DEFAULT 1.5)"), "{sql}");
    }
    let error = answer(&[TIMES], "SELECT times(DISTINCT a) FROM t").await.unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    let error = answer(&[TIMES], "SELECT * FROM times(1)").await.unwrap_err();
    assert_eq!(error.code, Code::InvalidStatement);
}

#[test]
fn a_function_cannot_call_itself() {
    let macros = Macros::default();
    macros.put(function("CREATE MACRO f(a) AS g(a)"));
    macros.put(function("CREATE MACRO g(a) AS f(a) + f(a)"));
    let error: Error = inline(&mut parse_query("SELECT f(1)").unwrap(), &macros).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::InvalidStatement, "the function `f` calls itself")
    );
}

#[test]
fn definitions_survive_the_journal_and_are_shown_as_they_were_written() {
    for text in
        [TIMES, "CREATE FUNCTION f() RETURNS TABLE RETURN SELECT 1 AS a", "CREATE MACRO m(a, b := 1) AS a"]
    {
        let made = function(text);
        let json = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<FunctionDef>(&json).unwrap(), made);
    }
    let shown = "times(x BIGINT, factor DOUBLE DEFAULT 1.5) RETURNS DOUBLE RETURN x * factor";
    assert_eq!(function(TIMES).to_string(), shown);
    for text in [
        "CREATE FUNCTION f(a INT, a INT) RETURNS INT RETURN 1",
        "CREATE FUNCTION f(a INT DEFAULT 1, b INT) RETURNS INT RETURN 1",
    ] {
        assert_eq!(parse(text, "public").unwrap_err().code, Code::InvalidStatement, "{text}");
    }
    let error = parse("CREATE FUNCTION s.f() RETURNS INT RETURN 1", "public").unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
}
