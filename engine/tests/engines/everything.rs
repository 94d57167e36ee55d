//! Whatever DataFusion plans has the same answer on both engines, whether it is cut into tasks or not.

use crate::cluster::{Cluster, run};
use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::Result as DfResult;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use std::path::Path;
use std::sync::Arc;
use tidemill_core::Code;
use tidemill_engine::{Engine, InProcess, JobKind};

/// Over `orders` (6000 rows in six row groups) and `customers` (100 rows). None depends on an order that it does not ask for.
const QUERIES: &[&str] = &[
    // Sets of rows without a table.
    "SELECT 1 AS a, 'x' AS b, NULL AS c",
    "VALUES (1, 'a'), (2, 'b'), (3, NULL)",
    "SELECT * FROM (VALUES (1, 2.5), (2, 3.5)) AS t(a, b) WHERE b > 3",
    "SELECT value FROM generate_series(1, 10)",
    "SELECT o.id, g.value FROM orders o JOIN generate_series(1, 3) g ON o.id = g.value",
    "SELECT unnest([1, 2, 3]) AS n",
    "SELECT count(*) FROM orders WHERE id IN (SELECT value FROM range(0, 100))",
    // Filters.
    "SELECT * FROM orders WHERE id = 17",
    "SELECT id FROM orders WHERE customer BETWEEN 3 AND 5 AND amount > 990",
    "SELECT count(*) FROM orders WHERE note LIKE '%7' OR note IS NULL",
    "SELECT count(*) FROM orders WHERE CASE WHEN amount % 2 = 0 THEN day > DATE '2026-01-10' ELSE note IS NULL END",
    "SELECT id FROM orders WHERE false",
    "SELECT count(DISTINCT note) FROM orders WHERE regexp_like(note, '^n[0-9]$')",
    // Aggregates.
    "SELECT count(*), sum(amount), min(day), max(note), avg(amount) FROM orders",
    "SELECT count(*), sum(amount) FROM orders WHERE id < 0",
    "SELECT customer, count(*), sum(amount) FROM orders GROUP BY customer",
    "SELECT customer % 7, count(DISTINCT day), count(DISTINCT note) FROM orders GROUP BY customer % 7",
    "SELECT customer, count(*) AS n FROM orders GROUP BY customer HAVING sum(amount) > 30000",
    "SELECT day, count(*) FILTER (WHERE amount > 500) FROM orders GROUP BY day",
    "SELECT median(amount), approx_distinct(customer) > 90, bit_xor(id), bool_and(id >= 0) FROM orders",
    "SELECT array_agg(id ORDER BY id DESC) FROM orders WHERE id < 10",
    "SELECT customer, string_agg(note, ',' ORDER BY id) FROM orders WHERE id < 300 GROUP BY customer",
    "SELECT first_value(id ORDER BY amount, id), last_value(id ORDER BY amount, id) FROM orders",
    "SELECT stddev(amount) > 0, corr(id, amount) < 1, var_pop(amount) > 0 FROM orders",
    // Grouping sets.
    "SELECT customer % 3, day, count(*), sum(amount) FROM orders GROUP BY GROUPING SETS ((customer % 3, day), (day), ())",
    "SELECT customer % 3, note IS NULL, count(*) FROM orders GROUP BY ROLLUP (customer % 3, note IS NULL)",
    "SELECT c, i, grouping(c), count(*) FROM (SELECT customer % 3 AS c, id % 2 AS i FROM orders) GROUP BY CUBE (c, i)",
    "SELECT DISTINCT customer % 10, day FROM orders",
    "SELECT DISTINCT ON (customer) customer, id FROM orders ORDER BY customer, amount DESC, id",
    // Joins.
    "SELECT c.region, sum(o.amount) FROM orders o JOIN customers c ON o.customer = c.id GROUP BY c.region",
    "SELECT count(*) FROM orders o LEFT JOIN customers c ON o.customer = c.id AND c.region = 'eu' WHERE c.id IS NULL",
    "SELECT count(*), count(o.id), count(c.id) FROM orders o FULL JOIN customers c ON o.customer = c.id + 50",
    "SELECT c.id FROM customers c RIGHT JOIN orders o ON c.id = o.customer WHERE o.id < 50",
    "SELECT count(*) FROM orders a JOIN orders b ON a.id = b.id + 1 AND a.amount > b.amount",
    "SELECT count(*) FROM customers a CROSS JOIN customers b",
    "SELECT count(*) FROM customers a JOIN customers b ON a.id < b.id",
    "SELECT c.id FROM customers c LEFT SEMI JOIN orders o ON c.id = o.customer AND o.amount > 995",
    "SELECT c.id FROM customers c LEFT ANTI JOIN orders o ON c.id = o.customer AND o.amount > 500",
    "SELECT count(*) FROM orders JOIN customers USING (id)",
    "SELECT count(*) FROM orders NATURAL JOIN customers",
    "SELECT count(*) FROM orders a JOIN orders b ON a.note IS NOT DISTINCT FROM b.note WHERE a.id < 50 AND b.id < 50",
    // Subqueries.
    "SELECT id FROM orders WHERE amount = (SELECT max(amount) FROM orders)",
    "SELECT id, (SELECT count(*) FROM customers) AS n FROM orders WHERE id < 5",
    "SELECT o.id FROM orders o WHERE o.amount > (SELECT avg(amount) + 400 FROM orders i WHERE i.customer = o.customer)",
    "SELECT c.id, (SELECT sum(amount) FROM orders o WHERE o.customer = c.id) AS total FROM customers c",
    "SELECT count(*) FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.amount > 990)",
    "SELECT count(*) FROM customers c WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.day > DATE '2026-01-20')",
    "SELECT count(*) FROM orders WHERE customer NOT IN (SELECT id FROM customers WHERE region = 'eu')",
    "SELECT count(*) FROM orders WHERE note NOT IN (SELECT note FROM orders WHERE id < 3)",
    "SELECT c.id, l.total FROM customers c JOIN LATERAL (SELECT sum(amount) AS total FROM orders o WHERE o.customer = c.id) l ON true",
    // Scalar subqueries: everywhere, and not aggregated.
    "SELECT id FROM orders WHERE customer = (SELECT id FROM customers WHERE name = 'c17')",
    "SELECT id, (SELECT note FROM orders WHERE id = -1) AS none FROM orders WHERE id < 5",
    "SELECT id FROM orders WHERE customer = (SELECT DISTINCT max(id) FROM customers GROUP BY id % 1)",
    "SELECT id FROM orders WHERE customer = (SELECT id FROM customers WHERE name = (SELECT concat('c', '3')))",
    "SELECT id, (SELECT tags FROM orders WHERE id = 7) AS tags FROM customers WHERE id < 5",
    "SELECT id FROM orders ORDER BY abs(id - (SELECT max(id) * 30 FROM customers)), id LIMIT 5",
    "SELECT customer, id FROM orders ORDER BY customer + (SELECT id FROM customers WHERE id = 3), id LIMIT 5",
    "SELECT sum(amount + (SELECT max(id) FROM customers)) FROM orders",
    "SELECT day, sum(amount) FILTER (WHERE amount > (SELECT avg(amount) FROM orders)) FROM orders GROUP BY day",
    "SELECT id % (SELECT id FROM customers WHERE name = 'c7') AS k, count(*) FROM orders GROUP BY k",
    "SELECT (SELECT max(id) FROM customers) AS k, max(id) FROM orders GROUP BY k",
    "SELECT customer % (SELECT id FROM customers WHERE id = 3), day, count(*) FROM orders \
     GROUP BY ROLLUP (customer % (SELECT id FROM customers WHERE id = 3), day)",
    "SELECT count(*) FROM orders a JOIN orders b ON a.id = b.id + (SELECT min(id) + 1 FROM customers)",
    "SELECT a.id, b.id FROM customers a LEFT JOIN customers b ON a.id + (SELECT id FROM customers WHERE id = 5) = b.id * 2",
    "SELECT count(*), count(a.id) FROM customers a RIGHT JOIN customers b ON a.id = b.id AND b.id > (SELECT avg(id) FROM customers)",
    "SELECT a.id, b.id FROM customers a FULL JOIN customers b ON a.id = b.id - (SELECT max(id) - 9 FROM customers)",
    "SELECT id FROM customers c LEFT ANTI JOIN orders o ON c.id = o.customer AND o.amount > (SELECT 500)",
    "SELECT name FROM customers JOIN orders USING (id) WHERE amount > (SELECT avg(amount) FROM orders) AND name < 'c3'",
    "SELECT id, sum(amount + (SELECT max(id) FROM customers)) OVER (PARTITION BY customer ORDER BY id) FROM orders",
    "SELECT DISTINCT ON (customer) customer, id FROM orders ORDER BY customer, amount * (SELECT min(id) - 1 FROM customers), id",
    "SELECT count(*) FROM customers WHERE id IN (SELECT customer FROM orders ORDER BY amount + (SELECT max(id) FROM orders), id LIMIT 9)",
    // Windows.
    "SELECT id, row_number() OVER (PARTITION BY customer ORDER BY amount, id) FROM orders",
    "SELECT id, rank() OVER (ORDER BY amount), dense_rank() OVER (ORDER BY amount), ntile(4) OVER (ORDER BY amount, id) FROM orders",
    "SELECT id, sum(amount) OVER (PARTITION BY customer ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM orders",
    "SELECT id, lag(amount, 1, 0) OVER (ORDER BY id), lead(note) OVER (PARTITION BY day ORDER BY id) FROM orders",
    "SELECT customer, id FROM orders QUALIFY row_number() OVER (PARTITION BY customer ORDER BY amount DESC, id) <= 2",
    "SELECT day, sum(sum(amount)) OVER (ORDER BY day RANGE BETWEEN INTERVAL '3 days' PRECEDING AND CURRENT ROW) FROM orders GROUP BY day",
    // Sets.
    "SELECT id FROM orders WHERE id < 10 UNION ALL SELECT id FROM customers WHERE id < 10",
    "SELECT customer FROM orders UNION SELECT id FROM customers",
    "SELECT customer FROM orders INTERSECT SELECT id FROM customers WHERE id > 50",
    "SELECT id % 5 AS k FROM orders INTERSECT ALL SELECT id % 5 FROM customers",
    "SELECT id FROM customers EXCEPT SELECT customer FROM orders WHERE amount > 500",
    "SELECT id % 5 AS k FROM customers EXCEPT ALL SELECT id % 10 FROM customers",
    "SELECT k, count(*) FROM (SELECT id % 3 AS k FROM orders UNION ALL SELECT id % 3 FROM customers) GROUP BY k",
    // Common tables, recursion.
    "WITH big AS (SELECT * FROM orders WHERE amount > 900) SELECT a.day, count(*) FROM big a JOIN big b ON a.day = b.day GROUP BY a.day",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) SELECT sum(i) FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) SELECT n.i, sum(o.amount) FROM n JOIN orders o ON o.customer = n.i GROUP BY n.i",
    // Nested values.
    "SELECT id, unnest(tags) AS tag FROM orders WHERE id < 20",
    "SELECT tag, count(*) FROM (SELECT unnest(tags) AS tag FROM orders) GROUP BY tag",
    "SELECT id, tags[1], array_length(tags), named_struct('a', id, 'b', note) FROM orders WHERE id < 20",
    "SELECT id FROM orders WHERE array_has(tags, 3) AND id < 100",
    // What cannot travel between processes.
    "SELECT id, arrow_cast(tags, 'LargeList(Int64)') FROM orders WHERE id < 20",
    "SELECT id, arrow_cast(id, 'Float16') + arrow_cast(1, 'Float16') FROM orders WHERE id < 20",
    "SELECT id, file_row_index() FROM orders WHERE id < 20",
    // Order and limit.
    "SELECT id, amount FROM orders ORDER BY amount DESC, id LIMIT 10",
    "SELECT id FROM orders ORDER BY note NULLS FIRST, id LIMIT 7 OFFSET 3",
    "SELECT count(*) FROM (SELECT id FROM orders LIMIT 17)",
    "SELECT count(*) FROM customers c RIGHT JOIN (SELECT customer FROM orders LIMIT 7) o ON c.id = o.customer",
    "SELECT customer, count(*) AS n FROM orders GROUP BY customer ORDER BY n DESC, customer LIMIT 5",
    // Spark's.
    "SELECT bit_count(id), hex(id) FROM orders WHERE id < 20",
    // Ours.
    "SELECT customer, CAST(sum(amount) AS DECIMAL(17, 2)) / count(*) AS mean FROM orders GROUP BY customer",
    "SELECT q * q FROM (SELECT CAST(amount AS DECIMAL(17, 2)) / CAST(id + 1 AS DECIMAL(17, 2)) AS q FROM orders)",
];

async fn tables(cluster: &Cluster, folder: &Path) {
    let write = [
        "COPY (SELECT value AS id, value * 7919 % 100 AS customer, value * 104729 % 1000 AS amount, \
         DATE '2026-01-01' + CAST(value * 31 % 25 AS INT) AS day, \
         CASE WHEN value % 11 = 0 THEN NULL ELSE concat('n', value % 37) END AS note, \
         CASE WHEN value % 13 = 0 THEN NULL ELSE [value % 5, value % 3] END AS tags \
         FROM range(6000)) TO 'FOLDER/orders.parquet' OPTIONS ('format.max_row_group_size' 1000)",
        "COPY (SELECT value AS id, concat('c', value) AS name, CASE WHEN value % 3 = 0 THEN 'eu' ELSE 'us' END AS region \
         FROM range(100)) TO 'FOLDER/customers.parquet'",
        "CREATE EXTERNAL TABLE orders STORED AS PARQUET LOCATION 'FOLDER/orders.parquet'",
        "CREATE EXTERNAL TABLE customers STORED AS PARQUET LOCATION 'FOLDER/customers.parquet'",
    ];
    for sql in write {
        let sql = sql.replace("FOLDER", folder.to_str().unwrap());
        cluster.session.sql(&sql).await.unwrap().collect().await.unwrap();
    }
}

/// The rows as text, sorted.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches).unwrap().to_string();
    let mut rows: Vec<String> = table.lines().skip(3).map(squeezed).collect();
    rows.sort_unstable();
    rows
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn plan(cluster: &Cluster, engine: &dyn Engine, sql: &str) -> DfResult<Arc<dyn ExecutionPlan>> {
    let mut state = cluster.session.state();
    *state.config_mut() = engine.planning(state.config(), None);
    state.create_physical_plan(&state.create_logical_plan(sql).await?).await
}

async fn answer(cluster: &Cluster, engine: &dyn Engine, sql: &str) -> Result<Vec<String>, String> {
    let plan = plan(cluster, engine, sql).await.map_err(|error| error.to_string())?;
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    let answer = run(engine, plan, &cluster.session, JobKind::Query).await;
    answer.map(|batches| rows(&batches)).map_err(|error| format!("{error}\n{shown}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_query_has_the_same_answer_on_both_engines() {
    let cluster = Cluster::of(2);
    let folder = tempfile::tempdir().unwrap();
    tables(&cluster, folder.path()).await;
    let in_process = InProcess::new(2);
    let mut failures = Vec::new();
    for sql in QUERIES {
        let one = answer(&cluster, &in_process, sql).await;
        let two = answer(&cluster, &cluster.engine, sql).await;
        if one != two || one.is_err() {
            failures.push(format!("{sql}\n  in process: {one:?}\n  pipelined: {two:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), QUERIES.len(), failures.join("\n\n"));
}

/// Queries of a subquery `TWO` that has two rows.
const TOO_MANY_ROWS: &[&str] = &[
    "SELECT id FROM orders WHERE customer = TWO",
    "SELECT id, TWO AS two FROM customers",
    "SELECT id FROM orders ORDER BY id + TWO LIMIT 3",
    "SELECT sum(amount + TWO) FROM orders",
    "SELECT id % TWO AS k, count(*) FROM orders GROUP BY k",
    "SELECT count(*) FROM orders a JOIN orders b ON a.id = b.id + TWO",
    "SELECT id, sum(id) OVER (ORDER BY id + TWO) FROM customers",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_scalar_subquery_of_two_rows_fails_on_both_engines() {
    let cluster = Cluster::of(2);
    let folder = tempfile::tempdir().unwrap();
    tables(&cluster, folder.path()).await;
    let in_process = InProcess::new(2);
    let engines: [&dyn Engine; 2] = [&in_process, &cluster.engine];
    // Of one task, of several, and the same value twice.
    for two in ["SELECT id FROM customers WHERE id < 2", "SELECT customer FROM orders WHERE id IN (7, 5007)"]
    {
        for (engine, sql) in
            engines.iter().flat_map(|engine| TOO_MANY_ROWS.iter().map(move |sql| (engine, sql)))
        {
            let sql = sql.replace("TWO", &format!("({two})"));
            let plan = plan(&cluster, *engine, &sql).await.unwrap();
            let error = run(*engine, plan, &cluster.session, JobKind::Query).await.unwrap_err();
            assert_eq!(error.code, Code::BadData, "{:?}: {sql}: {error}", engine.kind());
            assert!(error.message.contains("more than one row"), "{:?}: {sql}: {error}", engine.kind());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_say_what_they_did_also_under_a_limit() {
    let cluster = Cluster::of(2);
    let folder = tempfile::tempdir().unwrap();
    tables(&cluster, folder.path()).await;
    let stages = async |sql: &str| {
        let plan = cluster.plan(sql).await;
        let job = tidemill_engine::JobSpec {
            id: tidemill_core::JobId::new("analyze"),
            kind: JobKind::Analyze,
            title: String::new(),
        };
        let mut execution = cluster.engine.execute(job, plan, cluster.session.task_ctx()).await.unwrap();
        while let Some(batch) = futures::StreamExt::next(&mut execution.stream).await {
            batch.unwrap();
        }
        (execution.stages)().await.unwrap()
    };
    let grouped = stages("SELECT customer, count(*) FROM orders GROUP BY customer").await;
    assert!(grouped.len() >= 3, "the coordinator's, two of the workers: {grouped:?}");
    let leaf = grouped.iter().find(|stage| stage.scanned > 0).unwrap();
    assert_eq!(leaf.tasks, 2, "{leaf:?}");
    assert!(leaf.plan.contains("DataSourceExec"), "{}", leaf.plan);
    assert!(grouped.iter().any(|stage| stage.rows == 100), "the groups: {grouped:?}");
    assert!(grouped.iter().all(|stage| stage.skew >= 1.0), "{grouped:?}");

    let limited =
        tokio::time::timeout(std::time::Duration::from_secs(20), stages("SELECT id FROM orders LIMIT 1"));
    assert!(!limited.await.unwrap().is_empty());
}
