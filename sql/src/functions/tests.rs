//! Batch answers of the window functions, compared with answers counted by hand.

use super::*;
use crate::dialect::parse_query;
use crate::plan_query;
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use tidemill_core::{Code, Error};

/// Five events: two in the first minute, of which one is a duplicate, three later.
const EVENTS: &str = "CREATE TABLE events AS SELECT column1 AS event_id, \
    arrow_cast(column2, 'Timestamp(Microsecond, Some(\"UTC\"))') AS ts, column3 AS price FROM (VALUES \
    ('a', '2026-01-01T00:00:10Z', 1), ('a', '2026-01-01T00:00:50Z', 1), \
    ('b', '2026-01-01T00:01:00Z', 2), ('c', '2026-01-01T00:01:59.999Z', 4), \
    ('d', '2026-01-01T00:04:30Z', 8))";

async fn answer(sql: &str) -> Vec<String> {
    let context = SessionContext::new();
    context.sql(EVENTS).await.unwrap().collect().await.unwrap();
    let plan = plan_query(&context.state(), parse_query(sql).unwrap()).await.unwrap();
    let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
    let table = pretty_format_batches(&batches).unwrap().to_string();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|line| line.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" "))
        .collect()
}

fn rewrite(sql: &str, to: RewriteFor) -> Result<(String, Vec<WindowInfo>), Error> {
    let mut query = parse_query(sql).unwrap();
    let found = rewrite_windows(&mut query, to)?;
    Ok((query.to_string(), found))
}

#[tokio::test]
async fn tumble_puts_each_row_in_one_window() {
    let rows = answer(
        "SELECT date_format(window_start, '%H:%M') AS s, date_format(window_end, '%H:%M') AS e, sum(price) AS p \
         FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_start, window_end ORDER BY s",
    )
    .await;
    assert_eq!(rows, ["00:00 00:01 2", "00:01 00:02 6", "00:04 00:05 8"]);
}

#[tokio::test]
async fn hop_puts_each_row_in_every_window_that_holds_it() {
    let rows = answer(
        "SELECT date_format(window_start, '%H:%M') AS s, date_format(window_end, '%H:%M') AS e, count(*) AS n \
         FROM HOP(events, ts, INTERVAL '1 minute', INTERVAL '2 minutes') \
         GROUP BY window_start, window_end ORDER BY s",
    )
    .await;
    assert_eq!(rows, ["00:00 00:02 4", "00:01 00:03 2", "00:03 00:05 1", "00:04 00:06 1", "23:59 00:01 2"]);
}

#[tokio::test]
async fn hop_leaves_gaps_when_the_slide_is_longer_than_the_size() {
    let rows = answer(
        "SELECT date_format(window_start, '%H:%M') AS s, count(*) AS n \
         FROM HOP(events, ts, INTERVAL '2 minutes', INTERVAL '30 seconds') GROUP BY window_start ORDER BY s",
    )
    .await;
    assert_eq!(rows, ["00:00 1"]);
}

#[tokio::test]
async fn a_size_that_is_no_multiple_of_the_slide() {
    let rows = answer(
        "SELECT date_format(window_start, '%H:%M:%S') AS s, count(*) AS n \
         FROM HOP(events, ts, INTERVAL '60 seconds', INTERVAL '90 seconds') GROUP BY window_start ORDER BY s",
    )
    .await;
    assert_eq!(rows, ["00:00:00 3", "00:01:00 2", "00:04:00 1", "23:59:00 1"]);
}

#[tokio::test]
async fn deduplicate_keeps_the_earliest_of_each_key() {
    let rows = answer(
        "SELECT date_format(window_start, '%H:%M') AS s, sum(e.price) AS p \
         FROM TUMBLE(DEDUPLICATE(events, event_id), ts, INTERVAL '1 minute') AS e \
         GROUP BY window_start ORDER BY s",
    )
    .await;
    assert_eq!(rows, ["00:00 1", "00:01 6", "00:04 8"]);
    assert_eq!(answer("SELECT count(*) FROM DEDUPLICATE(events, event_id)").await, ["4"]);
}

#[tokio::test]
async fn sparks_window_means_the_same() {
    let rows = answer(
        "SELECT date_format(window.start, '%H:%M') AS s, sum(price) AS p FROM events \
         GROUP BY window(ts, '1 minute') ORDER BY window.start",
    )
    .await;
    assert_eq!(rows, ["00:00 2", "00:01 6", "00:04 8"]);
    let rows = answer(
        "SELECT date_format(window(e.ts, '2 minutes', '1 minute').end, '%H:%M') AS e, count(*) AS n \
         FROM events e GROUP BY window(e.ts, '2 minutes', '1 minute') HAVING count(*) > 1 ORDER BY 1",
    )
    .await;
    assert_eq!(rows, ["00:01 2", "00:02 4", "00:03 2"]);
}

#[tokio::test]
async fn sparks_window_keeps_its_column_names() {
    let context = SessionContext::new();
    context.sql(EVENTS).await.unwrap().collect().await.unwrap();
    let sql =
        "SELECT window, window.start, window.end, count(*) AS n FROM events GROUP BY window(ts, '1 minute')";
    let plan = plan_query(&context.state(), parse_query(sql).unwrap()).await.unwrap();
    let names: Vec<&str> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["window", "start", "end", "n"]);
}

#[tokio::test]
async fn windows_in_subqueries_and_common_table_expressions() {
    let rows = answer(
        "WITH w AS (SELECT window_start, price FROM TUMBLE(events, ts, INTERVAL '1 hour') WHERE price > 1) \
         SELECT count(*) AS n, max(price) AS p FROM (SELECT * FROM w)",
    )
    .await;
    assert_eq!(rows, ["3 8"]);
}

#[test]
fn tells_the_streaming_planner_what_it_found() {
    let sql = "SELECT window_start, count(*) FROM TUMBLE(DEDUPLICATE(Events, event_id), TS, INTERVAL '1 minute') e \
               GROUP BY window_start";
    let (text, found) = rewrite(sql, RewriteFor::Stream).unwrap();
    assert_eq!(
        found,
        [WindowInfo {
            kind: WindowKind::Tumble { size_ms: 60_000 },
            time_column: Some("ts".to_owned()),
            dedup_key: Some(vec!["event_id".to_owned()]),
            source: vec!["events".to_owned()],
            alias: "e".to_owned(),
        }]
    );
    assert!(text.contains("FROM \"events\" AS \"e\") e"), "{text}");
    assert!(!text.contains("DISTINCT"), "a stream removes duplicates itself: {text}");
}

#[test]
fn leaves_other_queries_alone() {
    let sql = "SELECT a, window FROM t GROUP BY a, window";
    assert_eq!(rewrite(sql, RewriteFor::Batch).unwrap(), (sql.to_owned(), vec![]));
}

#[test]
fn says_what_is_wrong() {
    let code = |from: &str| {
        rewrite(&format!("SELECT * FROM {from}"), RewriteFor::Batch).map(|_| ()).unwrap_err().code
    };
    assert_eq!(code("SESSION(t, ts, INTERVAL '1 minute')"), Code::Unsupported);
    assert_eq!(code("TUMBLE(t, ts)"), Code::InvalidStatement);
    assert_eq!(code("TUMBLE(t, ts, INTERVAL '0 seconds')"), Code::InvalidStatement);
    assert_eq!(code("TUMBLE(t, ts, INTERVAL '1 month')"), Code::InvalidStatement);
    assert_eq!(code("TUMBLE(t, ts + 1, INTERVAL '1 minute')"), Code::InvalidStatement);
    assert_eq!(code("TUMBLE((SELECT 1), ts, INTERVAL '1 minute')"), Code::Unsupported);
    assert_eq!(code("HOP(t, ts, INTERVAL '1 millisecond', INTERVAL '1 day')"), Code::Unsupported);
    assert_eq!(code("DEDUPLICATE(t)"), Code::InvalidStatement);
}
