//! DELETE, UPDATE, MERGE, overwrites, ALTER TABLE and CREATE OR REPLACE TABLE, in one process and on the engines of a
//! cluster.

use crate::cluster::{BINARY, Cluster, service};
use std::path::Path;
use std::process::Command;

/// What the last statement answers, as CSV without its header; or what the shell says of the error.
fn sql(folder: &Path, text: &str) -> Result<String, String> {
    let output = Command::new(BINARY)
        .current_dir(folder)
        .env_remove("TIDEMILL_SERVER")
        .args(["sql", "--format", "csv", "-c", text])
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    Ok(text.lines().skip(1).collect::<Vec<_>>().join(";"))
}

/// Statements, each with the query that looks at what it did and what that query answers, one row a `;`.
const STEPS: &[(&str, &str, &str)] = &[
    (
        "CREATE TABLE t PARTITIONED BY (third) AS \
         SELECT value AS n, 'n' || value AS word, value % 3 AS third FROM generate_series(1, 300)",
        "SELECT count(*), sum(n) FROM t",
        "300,45150",
    ),
    ("DELETE FROM t WHERE third = 0", "SELECT count(*), min(third) FROM t", "200,1"),
    ("DELETE FROM t WHERE n > 290 OR n IS NULL", "SELECT count(*), max(n) FROM t", "194,290"),
    (
        "DELETE FROM t AS x WHERE x.n IN (SELECT value FROM generate_series(1, 10)) \
         AND NOT EXISTS (SELECT 1 FROM generate_series(4, 5) AS g WHERE g.value = x.n)",
        "SELECT count(*), min(n) FROM t",
        "189,4",
    ),
    (
        "DELETE FROM t WHERE n IN (SELECT n FROM t ORDER BY n DESC LIMIT 2) \
         OR EXISTS (SELECT 1 FROM t AS other WHERE other.n = t.n + 1000 LIMIT 1) \
         OR (n > 280 AND n NOT IN (SELECT n FROM t WHERE n < 285 UNION ALL SELECT NULL))",
        "SELECT count(*), max(n) FROM t",
        "187,287",
    ),
    (
        "UPDATE t SET word = word || '!', third = 7 WHERE n BETWEEN 11 AND 13",
        "SELECT n, word, third FROM t WHERE n < 15 ORDER BY n",
        "4,n4,1;5,n5,2;11,n11!,7;13,n13!,7;14,n14,2",
    ),
    (
        "UPDATE t SET word = (SELECT max(word) FROM t) WHERE n = (SELECT min(n) FROM t)",
        "SELECT n, word FROM t WHERE n < 6 ORDER BY n",
        "4,n98;5,n5",
    ),
    (
        "MERGE INTO t USING (SELECT value AS n, 'merged' AS word, value % 3 AS third \
                             FROM generate_series(4, 6)) AS s ON t.n = s.n \
         WHEN MATCHED AND s.n = 5 THEN DELETE WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
        "SELECT n, word, third FROM t WHERE n < 12 ORDER BY n",
        "4,merged,1;6,merged,0;11,n11!,7",
    ),
    (
        "MERGE INTO t USING (SELECT 4 AS n) AS s ON t.n = s.n \
         WHEN MATCHED THEN UPDATE SET word = 'kept' \
         WHEN NOT MATCHED BY SOURCE AND t.n > 20 THEN DELETE \
         WHEN NOT MATCHED BY SOURCE AND t.n > 15 THEN UPDATE SET word = 'left'",
        "SELECT n, word FROM t ORDER BY n",
        "4,kept;6,merged;11,n11!;13,n13!;14,n14;16,left;17,left;19,left;20,left",
    ),
    (
        "INSERT INTO t REPLACE WHERE n >= 14 SELECT 15, 'replaced', 0",
        "SELECT n, word FROM t ORDER BY n",
        "4,kept;6,merged;11,n11!;13,n13!;15,replaced",
    ),
    (
        "ALTER TABLE t ADD COLUMNS (note VARCHAR); UPDATE t SET note = 'x' WHERE n = 4",
        "SELECT n, note FROM t ORDER BY n LIMIT 2",
        "4,x;6,",
    ),
    ("INSERT OVERWRITE t VALUES (1, 'one', 1, 'only')", "SELECT * FROM t", "1,one,1,only"),
    (
        "ALTER TABLE t ADD CONSTRAINT small CHECK (n < 10); INSERT INTO t VALUES (2, 'two', 2, NULL)",
        "SELECT count(*) FROM t",
        "2",
    ),
    (
        "MERGE WITH SCHEMA EVOLUTION INTO t USING (SELECT 2 AS n, 'red' AS colour UNION ALL SELECT 3, 'blue') AS s \
         ON t.n = s.n WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *",
        "SELECT n, word, colour FROM t ORDER BY n",
        "1,one,;2,two,red;3,,blue",
    ),
    (
        "CREATE OR REPLACE TABLE t PARTITIONED BY (part) AS SELECT n * 10 AS m, n % 2 AS part FROM t",
        "SELECT m, part FROM t ORDER BY m",
        "10,1;20,0;30,1",
    ),
    (
        "INSERT INTO t BY NAME SELECT 1 AS part, 70 AS m",
        "SELECT m, part FROM t WHERE part = 1 ORDER BY m",
        "10,1;30,1;70,1",
    ),
    (
        "CREATE OR REPLACE TABLE t (a BIGINT NOT NULL CHECK (a > 0) COMMENT 'a number', \
         b INT GENERATED ALWAYS AS (a + 1), ts TIMESTAMP, day DATE GENERATED ALWAYS AS (CAST(ts AS DATE)), \
         CONSTRAINT small CHECK (b < 100)) PARTITIONED BY (day) COMMENT 'numbers' \
         TBLPROPERTIES ('owner' = 'me'); \
         INSERT INTO t (ts, a) VALUES (TIMESTAMP '2026-01-02 03:04:05', 5)",
        "SELECT a, b, day FROM t",
        "5,6,2026-01-02",
    ),
    (
        "ALTER TABLE t ALTER COLUMN a DROP NOT NULL; ALTER TABLE t ALTER COLUMN ts SET NOT NULL; \
         ALTER TABLE t ALTER COLUMN ts COMMENT 'when'; INSERT INTO t VALUES (7, TIMESTAMP '2026-01-03 00:00:00')",
        "SELECT max(b), max(day) FROM t",
        "8,2026-01-03",
    ),
    (
        "DROP TABLE IF EXISTS w; CREATE TABLE w (a SMALLINT, b REAL, c DECIMAL(6, 2), d SMALLINT CHECK (d > 0), e SMALLINT) \
         PARTITIONED BY (e) TBLPROPERTIES ('delta.enableTypeWidening' = 'true'); \
         INSERT INTO w VALUES (1, 1.5, 1.25, 1, 1); SELECT * FROM w; SELECT * FROM w WHERE a > 0; SELECT max(a) FROM w; \
         ALTER TABLE w ALTER COLUMN a TYPE INT; ALTER TABLE w ALTER COLUMN a SET DATA TYPE BIGINT; \
         ALTER TABLE w ALTER COLUMN b TYPE DOUBLE; ALTER TABLE w ALTER COLUMN c TYPE DECIMAL(20, 4); \
         ALTER TABLE w ALTER COLUMN e TYPE BIGINT; \
         INSERT INTO w VALUES (5000000000, 1e30, CAST('1234567890123456.1234' AS DECIMAL(20, 4)), 2, 6000000000)",
        "SELECT a, b > 1e29 AS b, CAST(c AS VARCHAR) AS c, d, e FROM w WHERE a > 0 AND e > 0 ORDER BY a",
        "1,false,1.2500,1,1;5000000000,true,1234567890123456.1234,2,6000000000",
    ),
    (
        "UPDATE w SET b = 2.5 WHERE a = 1; MERGE INTO w USING (SELECT 7 AS a) AS s ON w.a = s.a \
         WHEN NOT MATCHED THEN INSERT (a, d) VALUES (s.a, 3); OPTIMIZE w",
        "SELECT a, b < 3 AS b, d, arrow_typeof(a) AS t FROM w ORDER BY a",
        "1,true,1,Int64;7,,3,Int64;5000000000,false,2,Int64",
    ),
    ("TRUNCATE TABLE t", "SELECT count(*) FROM t", "0"),
];

/// Statements that must fail, with words of the error. `t` has the rows 1, 2 and 3.
const REFUSED: &[(&str, &str)] = &[
    (
        "MERGE INTO t USING (SELECT 1 AS n UNION ALL SELECT 1) AS s ON t.n = s.n WHEN MATCHED THEN UPDATE SET word = 'x'",
        "several rows of the source",
    ),
    ("INSERT INTO t REPLACE WHERE n > 1 SELECT 1, 'x'", "do not pass"),
    ("UPDATE t SET wrd = 'x'", "did you mean `word`?"),
    ("DELETE FROM t WHERE random() < 0.5", "changes from call to call"),
    (
        "UPDATE t SET word = 'x' WHERE n IN (SELECT n FROM t WHERE random() < 0.5)",
        "a condition that changes from call to call",
    ),
    (
        "UPDATE t SET word = 'x' WHERE n IN (SELECT n FROM t ORDER BY word LIMIT 1)",
        "may give other rows each time",
    ),
    ("DELETE FROM t WHERE n IN (SELECT n FROM t LIMIT 1)", "name all columns that it gives in its ORDER BY"),
    (
        "MERGE INTO t USING (SELECT * FROM t LIMIT 1) AS s ON t.n = s.n WHEN MATCHED THEN DELETE",
        "a source of MERGE with a LIMIT",
    ),
    (
        "MERGE INTO t USING (SELECT 1 AS n) AS s ON t.n = s.n WHEN MATCHED AND random() < 0.5 THEN DELETE",
        "a condition of MERGE that changes",
    ),
    ("ALTER TABLE t ADD CONSTRAINT big CHECK (n > 1)", "n > 1"),
    ("ALTER TABLE t ADD CONSTRAINT odd CHECK (hex(n) <> 'FF')", "cannot evaluate `hex(n) <> 'FF'`"),
    ("UPDATE t SET n = n + 100", "constraint `small`"),
    ("INSERT INTO t VALUES (-1, 'ok'), (99, 'large')", "n: 99"),
    ("ALTER TABLE t SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')", "cannot be set"),
    ("ALTER TABLE t ALTER COLUMN word TYPE DOUBLE", "only with type widening"),
    (
        "CREATE OR REPLACE TABLE narrow (s SMALLINT CHECK (s > 0), b BIGINT) \
         TBLPROPERTIES ('delta.enableTypeWidening' = 'true'); ALTER TABLE narrow ALTER COLUMN b TYPE INT",
        "cannot be changed from",
    ),
    ("ALTER TABLE narrow ALTER COLUMN s TYPE INT", "depends on the type of column `s`"),
    ("ALTER TABLE narrow ALTER COLUMN x TYPE INT", "no column `x`"),
    ("ALTER TABLE t ALTER COLUMN m COMMENT 'x'", "no column `m`"),
    ("INSERT INTO t BY NAME SELECT 4 AS m", "no column `m`"),
    ("CREATE TABLE t (x INT)", "OR REPLACE"),
    ("CREATE OR REPLACE TABLE t (x INT) LOCATION '/elsewhere'", "stays there"),
    ("CREATE OR REPLACE TABLE t AS SELECT CAST(word AS INT) AS n FROM t", "'w'"),
    ("CREATE OR REPLACE TABLE t (x INT CHECK (sparkish(x)))", "cannot evaluate `sparkish(x)`"),
    ("CREATE OR REPLACE TABLE t (x INT CHECK (x > 0)) AS SELECT -1", "x: -1"),
    ("CREATE OR REPLACE TABLE seen AS SELECT 1 AS n", "a view"),
    ("CREATE TABLE u (x INT DEFAULT 5)", "allowColumnDefaults"),
    ("CREATE TABLE u AS SELECT CAST(word AS INT) AS n FROM t", "'w'"),
];

#[test]
fn every_change_in_one_process() {
    let folder = tempfile::tempdir().unwrap();
    for (statement, look, expected) in STEPS {
        sql(folder.path(), statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        assert_eq!(sql(folder.path(), look).unwrap(), *expected, "{statement}");
    }
}

#[test]
fn the_history_calls_statements_as_spark_does() {
    let folder = tempfile::tempdir().unwrap();
    let statements = "CREATE TABLE t AS SELECT 1 AS n; INSERT INTO t VALUES (2); \
                      CREATE VIEW v AS SELECT n + 10 AS n FROM t; INSERT INTO t SELECT n FROM v; \
                      INSERT OVERWRITE t SELECT n FROM t; CREATE OR REPLACE TABLE t AS SELECT n FROM t; \
                      CREATE OR REPLACE TABLE t (x INT); DESCRIBE HISTORY t";
    let output = Command::new(BINARY)
        .current_dir(folder.path())
        .env_remove("TIDEMILL_SERVER")
        .args(["sql", "--format", "json", "-c", statements])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let commits: Vec<serde_json::Value> = text.lines().flat_map(serde_json::from_str).collect();
    let told: Vec<_> = commits
        .iter()
        .filter(|commit| commit["operation"].is_string())
        .map(|commit| {
            let mode = commit["operationParameters"]["mode"].as_str().unwrap_or_default();
            (commit["operation"].as_str().unwrap(), mode, commit["isBlindAppend"].as_bool())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("CREATE OR REPLACE TABLE", "", Some(false)),
            ("CREATE OR REPLACE TABLE AS SELECT", "", Some(false)),
            ("WRITE", "Overwrite", Some(false)),
            ("WRITE", "Append", Some(false)),
            ("WRITE", "Append", Some(true)),
            ("CREATE TABLE AS SELECT", "", Some(true)),
        ]
    );
    assert_eq!(commits.last().unwrap()["version"], 0, "a table comes with its rows");
}

#[test]
fn what_is_refused_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let fill = "CREATE TABLE t AS SELECT value AS n, 'w' AS word FROM generate_series(1, 3); \
                ALTER TABLE t ADD CONSTRAINT small CHECK (n < 10); CREATE VIEW seen AS SELECT n FROM t";
    sql(folder.path(), fill).unwrap();
    for (statement, words) in REFUSED {
        let error = sql(folder.path(), statement).unwrap_err();
        assert!(error.contains(words), "{statement}: {error}");
    }
    let twice =
        "MERGE INTO t USING (SELECT 1 AS n UNION ALL SELECT 1) AS s ON t.n = s.n WHEN MATCHED THEN DELETE";
    sql(folder.path(), twice).unwrap();
    assert_eq!(sql(folder.path(), "SELECT count(*), sum(n) FROM t").unwrap(), "2,5");
    assert_eq!(sql(folder.path(), "SHOW TABLES LIKE 'u'").unwrap(), "");
}

#[test]
fn a_replaced_table_has_its_history_and_what_was_said_of_it_can_be_said_again() {
    let folder = tempfile::tempdir().unwrap();
    let create = "CREATE TABLE t AS SELECT value AS n FROM generate_series(1, 3)";
    sql(folder.path(), create).unwrap();
    sql(
        folder.path(),
        "CREATE OR REPLACE TABLE t (n VARCHAR CHECK (n <> ''), m INT GENERATED ALWAYS AS (length(n)))",
    )
    .unwrap();
    let rows = "INSERT INTO t VALUES ('one'), (DEFAULT)";
    assert!(sql(folder.path(), rows).unwrap_err().contains("`t_n_check`"), "NULL is not true");
    sql(folder.path(), "INSERT INTO t VALUES ('one')").unwrap();
    assert_eq!(sql(folder.path(), "SELECT n, m FROM t").unwrap(), "one,3");
    assert_eq!(sql(folder.path(), "SELECT sum(n) FROM t VERSION AS OF 0").unwrap(), "6");
    let made = sql(folder.path(), "SHOW CREATE TABLE t").unwrap();
    for part in ["GENERATED ALWAYS AS (length(n))", "ADD CONSTRAINT \"\"t_n_check\"\" CHECK (n <> '')"] {
        assert!(made.contains(part), "{made}");
    }
    sql(folder.path(), "CREATE OR REPLACE TABLE fresh AS SELECT 1 AS n").unwrap();
    assert_eq!(sql(folder.path(), "SELECT n FROM fresh").unwrap(), "1");
}

#[test]
fn a_table_at_a_place_of_its_own_gets_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (there, here) = (folder.path().join("there"), folder.path().join("here"));
    for lake in [&there, &here] {
        std::fs::create_dir(lake).unwrap();
    }
    let place = format!("LOCATION '{}'", folder.path().join("place").display());
    sql(&there, &format!("CREATE TABLE t (n INT) {place}; INSERT INTO t VALUES (7)")).unwrap();
    let error = sql(&here, &format!("CREATE TABLE t (n INT) {place}")).unwrap_err();
    assert!(
        error.contains("there is a Delta table at") && error.contains("CREATE EXTERNAL TABLE"),
        "{error}"
    );
    sql(&here, &format!("CREATE TABLE IF NOT EXISTS t (n INT) {place}")).unwrap();
    assert_eq!(sql(&here, "SELECT n FROM t").unwrap(), "7");
}

#[test]
fn every_change_on_the_executors() {
    let Some(s3) = service("every_change_on_the_executors", "TIDEMILL_S3_ENDPOINT") else { return };
    let cluster = Cluster::start(&s3);
    for engine in ["pipelined", "staged"] {
        for (statement, look, expected) in STEPS {
            // A generated series is only known to the process itself: what follows from it comes from a table.
            let statement = statement.replace("FROM generate_series(1, 10)", "FROM ten");
            let statement = statement.replace("FROM generate_series(4, 5)", "FROM four_five");
            let statement = statement.replace("FROM generate_series(4, 6)", "FROM four_six");
            let set = match statement.starts_with("CREATE TABLE") {
                true => "DROP TABLE IF EXISTS t; DROP TABLE IF EXISTS ten; DROP TABLE IF EXISTS four_five; \
                         DROP TABLE IF EXISTS four_six; \
                         CREATE TABLE ten AS SELECT value FROM generate_series(1, 10); \
                         CREATE TABLE four_five AS SELECT value FROM generate_series(4, 5); \
                         CREATE TABLE four_six AS SELECT value FROM generate_series(4, 6)"
                    .to_owned(),
                false => format!("SET engine = '{engine}'"),
            };
            cluster.rows(&format!("{set}; {statement}")).unwrap_or_else(|error| {
                cluster.print_logs();
                panic!("{engine}: {statement}: {error}")
            });
            let rows = cluster.rows(look).unwrap();
            let values = |row: &serde_json::Value| {
                let row = row.as_object().unwrap();
                let values = row.values().map(|value| match value {
                    serde_json::Value::String(text) => text.clone(),
                    serde_json::Value::Null => String::new(),
                    other => other.to_string(),
                });
                values.collect::<Vec<_>>().join(",")
            };
            let mut found: Vec<String> = rows.iter().map(values).collect();
            let mut expected: Vec<String> = expected.split(';').map(sorted_fields).collect();
            found = found.iter().map(|row| sorted_fields(row)).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{engine}: {statement}");
        }
    }
}

/// The values of a row without their order, as JSON objects may be sorted by name.
fn sorted_fields(row: &str) -> String {
    let mut fields: Vec<&str> = row.split(',').collect();
    fields.sort_unstable();
    fields.join(",")
}
