//! What belongs to no single statement: first words, names, and the statements that are too small for tests of
//! their own.

use super::*;
use crate::{TableName, parse};
use tidemill_core::{Code, Error};

fn refused(text: &str) -> Error {
    parse(text, "public").unwrap_err()
}

#[test]
fn queries_of_every_shape() {
    for text in [
        "SELECT 1",
        "(SELECT 1) UNION ALL SELECT 2;",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1), (2)",
        "-- first a comment\nSELECT $1, :from",
        "SELECT * FROM 'data/file.parquet'",
        "SELECT a[1], s.b, INTERVAL '1 day' FROM t WHERE x IS DISTINCT FROM y",
    ] {
        assert!(matches!(parse(text, "public"), Ok(Statement::Query(_))), "{text}");
    }
}

#[test]
fn a_misspelt_first_word_is_named() {
    let error = refused("\nSELCT 1");
    assert_eq!((error.code, error.hint.as_deref()), (Code::Syntax, Some("did you mean `SELECT`?")));
    assert!(error.message.ends_with("at line 2, column 1\n  SELCT 1\n  ^"), "{error}");
    let error = refused("CREATE SORCE x");
    assert_eq!((error.code, error.hint.as_deref()), (Code::Syntax, Some("did you mean `SOURCE`?")));
}

#[test]
fn what_others_have_is_unsupported_not_misspelt() {
    for text in ["BEGIN", "COPY t TO 'x'"] {
        assert_eq!(refused(text).code, Code::Unsupported, "{text}");
    }
}

#[test]
fn one_statement_and_nothing_behind_it() {
    assert_eq!(refused("SELECT 1; SELECT 2").code, Code::Syntax);
    assert_eq!(refused("DROP TABLE t CASCADE").code, Code::Syntax);
    assert_eq!(refused(" -- nothing\n;").code, Code::Syntax);
    let error = refused("SELECT 'open");
    assert_eq!(error.code, Code::Syntax);
    assert!(error.message.contains("line 1"), "{error}");
}

#[test]
fn small_statements() {
    let ok = |text: &str| parse(text, "shop").unwrap();
    let revenue = TableName::new("shop", "revenue");
    let control = |action, target| Statement::Control(Control { action, target });
    let pipeline = || ControlTarget::Pipeline(revenue.clone());
    assert_eq!(ok("pause pipeline Revenue"), control(ControlAction::Pause, pipeline()));
    assert_eq!(ok("RESUME LOAD l"), control(ControlAction::Resume, ControlTarget::Load("l".to_owned())));
    assert_eq!(ok("STOP PIPELINE revenue WITH DRAIN"), control(ControlAction::Drain, pipeline()));
    assert_eq!(refused("STOP PIPELINE revenue").code, Code::Syntax);

    let drop = |object, if_exists| Statement::Drop(Drop { object, if_exists, cascade: false });
    let is_pipeline = ObjectKind::Pipeline(revenue.clone());
    assert_eq!(ok("DROP STREAMING TABLE IF EXISTS revenue"), drop(is_pipeline, true));
    assert_eq!(ok("DROP SOURCE \"Events\""), drop(ObjectKind::Source("Events".to_owned()), false));
    assert_eq!(ok("DROP VIEW s.v"), drop(ObjectKind::View(TableName::new("s", "v")), false));

    let set = |name: &str, value: Option<&str>| {
        Statement::Set(Set { name: name.to_owned(), value: value.map(str::to_owned) })
    };
    assert_eq!(ok("SET engine = 'staged'"), set("engine", Some("staged")));
    assert_eq!(
        ok("SET datafusion.execution.batch_size TO 1024"),
        set("datafusion.execution.batch_size", Some("1024"))
    );
    assert_eq!(ok("RESET engine"), set("engine", None));

    assert_eq!(ok("SHOW PIPELINES"), Statement::Show(Show::Pipelines));
    assert_eq!(ok("SHOW engine"), Statement::Show(Show::Variable("engine".to_owned())));
    assert_eq!(ok("SHOW COLUMNS FROM revenue"), Statement::Show(Show::Columns(revenue.clone())));
    let describe = |extended| Statement::Describe(Describe { table: revenue.clone(), extended });
    assert_eq!(ok("DESCRIBE tidemill.shop.revenue"), describe(false));
    assert_eq!(ok("desc extended revenue"), describe(true));
    let schema = CreateSchema { if_not_exists: true, name: "s".to_owned() };
    assert_eq!(ok("CREATE SCHEMA IF NOT EXISTS s"), Statement::CreateSchema(schema));
}

#[test]
fn connections_and_views_survive_the_journal() {
    let text = "CREATE CONNECTION w WITH (connector = 'clickhouse', password = 'env:CH_PASSWORD')";
    let Ok(Statement::CreateConnection(create)) = parse(text, "public") else { panic!() };
    assert_eq!(create.connection.connector, "clickhouse");
    let json = serde_json::to_string(&create.connection).unwrap();
    assert_eq!(serde_json::from_str::<ConnectionDef>(&json).unwrap(), create.connection);

    let Ok(Statement::CreateView(create)) = parse("CREATE VIEW v AS SELECT 1 AS a;", "s") else { panic!() };
    assert_eq!(
        (create.view.name.clone(), create.view.query.as_str()),
        (TableName::new("s", "v"), "SELECT 1 AS a")
    );
    let json = serde_json::to_string(&create.view).unwrap();
    assert_eq!(serde_json::from_str::<ViewDef>(&json).unwrap(), create.view);
}

#[test]
fn explain_takes_what_has_a_plan() {
    let Ok(Statement::Explain(explain)) = parse("EXPLAIN ANALYZE VERBOSE SELECT 1", "public") else {
        panic!()
    };
    assert!(explain.analyze && explain.verbose && matches!(*explain.statement, Statement::Query(_)));
    let Ok(Statement::Explain(explain)) = parse("EXPLAIN (VERBOSE, FORMAT tree) SELECT 1", "public") else {
        panic!()
    };
    assert!(!explain.analyze && explain.verbose && explain.format == ExplainFormat::Tree);
    assert!(matches!(parse("EXPLAIN (SELECT 1)", "public"), Ok(Statement::Explain(_))));
    assert_eq!(refused("EXPLAIN ANALYZE FORMAT TREE SELECT 1").code, Code::Unsupported);
    assert!(parse("EXPLAIN CREATE STREAMING TABLE t AS SELECT * FROM s", "public").is_ok());
    assert_eq!(
        refused("EXPLAIN ANALYZE CREATE STREAMING TABLE t AS SELECT * FROM s").code,
        Code::Unsupported
    );
    assert_eq!(refused("EXPLAIN DROP TABLE t").code, Code::Unsupported);
}

#[test]
fn inserts_with_and_without_columns() {
    let insert = |text: &str| match parse(text, "public") {
        Ok(Statement::Insert(insert)) => insert.columns,
        other => panic!("{other:?}"),
    };
    assert_eq!(insert("INSERT INTO t (a, B) SELECT 1, 2"), ["a", "b"]);
    assert!(insert("INSERT INTO t VALUES (1, 2)").is_empty());
    assert!(insert("INSERT INTO t (SELECT 1)").is_empty());
    let mode = |text: &str| match parse(text, "public") {
        Ok(Statement::Insert(insert)) => insert.mode,
        other => panic!("{other:?}"),
    };
    assert_eq!(mode("INSERT OVERWRITE t SELECT 1"), InsertMode::Overwrite);
    assert_eq!(mode("INSERT OVERWRITE INTO TABLE t SELECT 1"), InsertMode::Overwrite);
    let replace = mode("INSERT INTO t (a) REPLACE WHERE a >= 1 SELECT 1");
    assert_eq!(replace, InsertMode::ReplaceWhere("a >= 1".to_owned()));
}

#[test]
fn what_a_catalog_shows() {
    let show = |text: &str| match parse(text, "shop") {
        Ok(Statement::Show(show)) => show,
        other => panic!("{text}: {other:?}"),
    };
    let tables = |schema: Option<&str>, like: Option<&str>| Show::Tables {
        schema: schema.map(str::to_owned),
        like: like.map(str::to_owned),
    };
    assert_eq!(show("SHOW TABLES"), tables(None, None));
    assert_eq!(show("SHOW TABLES IN tidemill.sales LIKE 'a%';"), tables(Some("sales"), Some("a%")));
    assert_eq!(show("SHOW TABLES FROM sales 'a*'"), tables(Some("sales"), Some("a*")));
    assert_eq!(show("SHOW DATABASES"), Show::Schemas { like: None });
    assert_eq!(show("SHOW CREATE VIEW v"), Show::Create(TableName::new("shop", "v")));
    let properties = |key: Option<&str>| Show::Properties {
        table: TableName::new("shop", "t"),
        key: key.map(str::to_owned),
    };
    assert_eq!(show("SHOW TBLPROPERTIES t"), properties(None));
    assert_eq!(show("SHOW TBLPROPERTIES t ('delta.appendOnly');"), properties(Some("delta.appendOnly")));
    assert!(show("SHOW TABLES IN s LIKE 'it''s'").query().unwrap().contains("LIKE 'it''s'"));
    let set = |value: &str| Statement::Set(Set { name: "schema".to_owned(), value: Some(value.to_owned()) });
    assert_eq!(parse("USE sales", "shop").unwrap(), set("sales"));
    assert_eq!(parse("USE SCHEMA tidemill.\"S\"", "shop").unwrap(), set("S"));
    assert_eq!(refused("USE a.b").code, Code::UnknownObject);
}

#[test]
fn comments_and_views() {
    let comment = |text: &str| match parse(text, "shop") {
        Ok(Statement::Comment(comment)) => (comment.table.to_string(), comment.column, comment.text),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        comment("COMMENT ON COLUMN s.t.\"C\" IS 'it''s'"),
        ("s.t".to_owned(), Some("C".to_owned()), "it's".to_owned())
    );
    assert_eq!(comment("COMMENT ON TABLE t IS NULL"), ("shop.t".to_owned(), None, String::new()));
    assert_eq!(refused("COMMENT ON COLUMN c IS 'x'").code, Code::InvalidStatement);

    let text = "CREATE OR REPLACE TEMP VIEW v (a COMMENT 'first', b) COMMENT 'both' AS SELECT 1, 2 -- two";
    let Ok(Statement::CreateView(create)) = parse(text, "shop") else { panic!() };
    assert!(create.temporary && create.or_replace);
    assert_eq!(create.view.column_comments["a"], "first");
    assert_eq!(create.view.comment.as_deref(), Some("both"));
    assert!(create.view.parse_query().unwrap().to_string().ends_with("AS v (\"a\", \"b\")"));
    let old = r#"{"name": {"schema": "s", "name": "v"}, "query": "SELECT 1", "default_schema": "s"}"#;
    assert!(
        serde_json::from_str::<ViewDef>(old).unwrap().columns.is_empty(),
        "a journal of an older version"
    );

    let rename = parse("ALTER VIEW v RENAME TO w", "shop").unwrap();
    let change = ViewChange::Rename(TableName::new("shop", "w"));
    assert_eq!(rename, Statement::AlterView(AlterView { name: TableName::new("shop", "v"), change }));
    let Ok(Statement::Drop(drop)) = parse("DROP SCHEMA s CASCADE", "shop") else { panic!() };
    assert!(drop.cascade);
}
