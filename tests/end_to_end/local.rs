//! One process: what is written is there after a restart, and errors say what is allowed.

use crate::cluster::BINARY;
use std::path::Path;
use std::process::{Command, Output};

fn sql(folder: &Path, text: &str) -> Output {
    Command::new(BINARY)
        .current_dir(folder)
        // A port on which nobody answers: the statements run in the process itself.
        .env_remove("TIDEMILL_SERVER")
        .args(["sql", "--format", "csv", "-c", text])
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn tables_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let create = "CREATE TABLE numbers PARTITIONED BY (third) AS \
                  SELECT value AS n, value % 3 AS third FROM generate_series(1, 1000)";
    stdout(&sql(folder.path(), create));
    stdout(&sql(folder.path(), "INSERT INTO numbers SELECT n + 1000, third FROM numbers"));
    let answer = stdout(&sql(
        folder.path(),
        "SELECT third, count(*) AS rows, sum(n) AS total FROM numbers GROUP BY third ORDER BY third",
    ));
    assert_eq!(answer, "third,rows,total\n0,666,666666\n1,668,668334\n2,666,666000\n");
}

#[test]
fn optimize_and_loads_are_jobs_within_their_memory() {
    let folder = tempfile::tempdir().unwrap();
    let table = "CREATE TABLE t AS SELECT value AS a, value % 1000 AS b, CAST('2026-01-01' AS TIMESTAMP) AS at \
                 FROM generate_series(1, 200000)";
    stdout(&sql(folder.path(), table));
    // Sorting keeps back more than this alone.
    let little = sql(folder.path(), "SET memory_limit = '100 KiB'; OPTIMIZE t ZORDER BY (a, b)");
    let words = String::from_utf8_lossy(&little.stderr).into_owned();
    assert!(!little.status.success() && words.contains("TM-3004") && words.contains("100.0 KB"), "{words}");
    let enough = "OPTIMIZE t ZORDER BY (a, b); \
                  SELECT lane, status FROM tidemill.jobs WHERE sql LIKE 'OPTIMIZE%' AND status = 'done'";
    let told = stdout(&sql(folder.path(), enough));
    assert!(told.ends_with("lane,status\nheavy,done\n"), "{told}");

    let load = format!(
        "CREATE CONNECTION export WITH (connector = 'files', format = 'parquet'); \
         CREATE LOAD daily INTO export.\"{}\" \
         AS SELECT * FROM t WHERE at >= :from AND at < :to; \
         RUN LOAD daily FOR '2025-12-31' TO '2026-01-02'; \
         SELECT status, count(*) AS n FROM tidemill.jobs WHERE \"user\" = 'loads' GROUP BY status",
        folder.path().join("out").display()
    );
    let told = stdout(&sql(folder.path(), &load));
    assert!(told.ends_with("status,n\ndone,1\n"), "{told}");
}

#[test]
fn a_dropped_table_makes_room_for_another() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&sql(
        folder.path(),
        "CREATE TABLE t AS SELECT 1 AS n; DROP TABLE t; CREATE TABLE t AS SELECT 'x' AS word",
    ));
    assert_eq!(stdout(&sql(folder.path(), "SELECT * FROM t")), "word\nx\n");
    let elsewhere = folder.path().join("elsewhere");
    let create = format!(
        "CREATE TABLE kept WITH (location = '{}') AS SELECT 1 AS n; DROP TABLE kept",
        elsewhere.display()
    );
    stdout(&sql(folder.path(), &create));
    assert!(
        elsewhere.join("_delta_log").exists(),
        "a table at a location that was asked for keeps its files"
    );
}

#[test]
fn a_table_whose_query_fails_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "(SELECT CASE WHEN value < 50000 THEN '1' ELSE 'x' END AS v FROM generate_series(1, 100000))";
    let output = sql(folder.path(), &format!("CREATE TABLE t AS SELECT CAST(v AS BIGINT) AS n FROM {rows}"));
    assert!(!output.status.success());
    let output = sql(folder.path(), "SELECT * FROM t");
    assert!(String::from_utf8_lossy(&output.stderr).contains("TM-1003"));
    stdout(&sql(folder.path(), "CREATE TABLE t AS SELECT 1 AS n"));
}

#[test]
fn errors_say_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&sql(folder.path(), "CREATE TABLE events (user_id VARCHAR, price DOUBLE)"));
    let cases = [
        ("SELECT usr_id FROM events", "TM-1002", "user_id"),
        ("SELEC 1", "TM-1001", "SELECT"),
        ("SELECT * FROM evnts", "TM-1003", "events"),
        ("SET engine = 'staged'; SELECT count(price) FROM events", "TM-1007", "tidemill executor"),
        ("SET engine = 'fast'", "TM-1006", "pipelined"),
        ("DROP PIPELINE revenue", "TM-1003", "revenue"),
        ("CREATE CONNECTION w WITH (connector = 'clickhuse')", "TM-1006", "clickhouse"),
        ("CREATE TABLE events (a INT)", "TM-1004", "IF NOT EXISTS"),
        ("INSERT INTO events SELECT 1", "TM-1008", "user_id, price"),
    ];
    for (statement, code, word) in cases {
        let output = sql(folder.path(), statement);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{statement} went well");
        assert!(words.contains(code) && words.contains(word), "{statement}: {words}");
    }
}

#[test]
fn views_functions_and_comments_outlive_the_process_and_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str| stdout(&sql(folder.path(), text));
    run("CREATE SCHEMA shop; USE shop; \
         CREATE TABLE orders (id BIGINT NOT NULL, price DOUBLE); INSERT INTO orders VALUES (1, 10.0), (2, 20.0); \
         COMMENT ON TABLE orders IS 'what was bought'; COMMENT ON COLUMN orders.price IS 'in euro'; \
         CREATE FUNCTION vat(p DOUBLE, rate DOUBLE DEFAULT 0.5) RETURNS DOUBLE RETURN p * rate; \
         CREATE VIEW taxed (id, tax) AS SELECT id, vat(price) FROM orders");
    let described = run("USE shop; DESCRIBE orders");
    assert!(
        described.contains("id,BIGINT,NO,\n") && described.contains("price,DOUBLE,YES,in euro\n"),
        "{described}"
    );
    run("ALTER TABLE shop.orders ADD CONSTRAINT priced CHECK (price > 0); \
         ALTER TABLE shop.orders SET TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'owner' = 'ann')");
    let extended = run("DESCRIBE EXTENDED shop.orders");
    for detail in ["# comment,what was bought", "# constraint,priced CHECK (price > 0)", "'owner' = 'ann'"] {
        assert!(extended.contains(detail), "{detail}: {extended}");
    }
    let properties = "key,value\ndelta.isolationLevel,Serializable\nowner,ann\n";
    assert_eq!(run("SHOW TBLPROPERTIES shop.orders"), properties);
    assert_eq!(run("SHOW TBLPROPERTIES shop.orders ('owner')"), "key,value\nowner,ann\n");
    assert_eq!(run("SELECT sum(tax) AS tax FROM shop.taxed"), "tax\n15.0\n");
    assert!(run("SHOW FUNCTIONS LIKE 'va*'").contains("vat,sql,"), "functions are listed");
    assert!(run("SHOW FUNCTIONS LIKE 'bit_count'").contains("bit_count,scalar,"), "Spark's are there");

    // What SHOW CREATE says makes the same table again.
    let created = run("SHOW CREATE TABLE shop.orders");
    assert!(created.contains("CHECK (price > 0)") && created.contains("'owner' = 'ann'"), "{created}");
    let text =
        created.trim_start_matches("create_statement\n").trim().trim_matches('"').replace("\"\"", "\"");
    run(&format!("DROP TABLE shop.orders; {text}"));
    assert_eq!(run("SHOW CREATE TABLE shop.orders"), created);

    let mine = "CREATE TEMPORARY VIEW t AS SELECT 7 AS n; SELECT n FROM t; DROP VIEW t; SHOW VIEWS IN public";
    assert!(run(mine).contains("n\n7\n"), "a temporary view is there for its session");
    assert!(!sql(folder.path(), "SELECT n FROM t").status.success(), "and gone with it");
    assert!(!sql(folder.path(), "DROP SCHEMA shop").status.success(), "it is not empty");
    run("DROP SCHEMA shop CASCADE; DROP FUNCTION vat");
    assert!(!run("SHOW SCHEMAS").contains("shop"));
}

/// Expressions with what Spark answers.
const AS_IN_SPARK: &[(&str, &str)] = &[
    ("add_months('2024-01-31', 1)", "2024-02-29"),
    ("date_add('2024-02-28', 2)", "2024-03-01"),
    ("date_sub(DATE '2024-03-01', 1)", "2024-02-29"),
    ("date_format(to_timestamp('05/03/2024 13:45', 'dd/MM/yyyy HH:mm'), 'yyyy-MM-dd')", "2024-03-05"),
    ("format_number(12332.123456, 4)", "\"12,332.1235\""),
    ("get_json_object('{\"a\":{\"b\":\"x\"}}', '$.a.b')", "x"),
    ("months_between('1997-02-28 10:30:00', '1996-10-30')", "3.94959677"),
    ("months_between('2024-03-31', '2024-02-29')", "1.0"),
    ("weekofyear('2008-02-20')", "8"),
    ("(SELECT percentile_approx(value, 0.5) FROM generate_series(1, 3))", "2.0"),
];

#[test]
fn sparks_everyday_functions_answer_as_in_spark() {
    let folder = tempfile::tempdir().unwrap();
    for (expression, expected) in AS_IN_SPARK {
        let answer = stdout(&sql(folder.path(), &format!("SELECT {expression} AS x")));
        assert_eq!(answer, format!("x\n{expected}\n"), "{expression}");
    }
    // In a view, in a condition, and listed.
    let run = |text: &str| stdout(&sql(folder.path(), text));
    run("CREATE TABLE t AS SELECT DATE '2024-05-06' AS d UNION ALL SELECT DATE '2023-05-06'; \
         CREATE VIEW years AS SELECT year(d) AS y, count(*) AS n FROM t GROUP BY year(d)");
    assert_eq!(run("DELETE FROM t WHERE year(d) = 2023; SELECT * FROM years"), "y,n\n2024,1\n");
    assert!(run("SHOW FUNCTIONS LIKE 'dayof*'").contains("dayofweek,spark,"));
}

#[test]
fn explain_analyze_shows_stages() {
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str| stdout(&sql(folder.path(), text));
    run("CREATE TABLE t AS SELECT value AS n FROM generate_series(1, 1000)");
    let analyzed = run("EXPLAIN ANALYZE SELECT n % 10, count(*) FROM t GROUP BY n % 10");
    assert!(analyzed.contains("in_process (one process)") && analyzed.contains("skew"), "{analyzed}");
    assert!(analyzed.contains("output_rows=10"), "{analyzed}");
    assert!(run("EXPLAIN (FORMAT TREE) SELECT n FROM t").contains("DataSourceExec"));
}
