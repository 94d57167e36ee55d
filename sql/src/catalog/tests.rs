//! Sessions over a catalog whose lake is a folder of memory tables.

use super::*;
use crate::statement::{Statement, TableDef, ViewDef};
use crate::{DEFAULT_SCHEMA, TableName, parse, plan_query};
use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{LakeFormat, TableNotes, TableOptions, TableVersion};
use url::Url;

#[derive(Debug, Default)]
struct MemoryLake {
    tables: Mutex<BTreeMap<String, Vec<i32>>>,
}

impl MemoryLake {
    fn put(&self, url: &Url, values: &[i32]) {
        self.tables.lock().unwrap().insert(url.to_string(), values.to_vec());
    }
}

fn numbers(values: Vec<i32>) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int32Array::from(values))]).unwrap()
}

#[async_trait]
impl LakeFormat for MemoryLake {
    async fn open(&self, location: &Url) -> Result<Arc<dyn TableProvider>> {
        let values = self.tables.lock().unwrap().get(location.as_str()).cloned();
        let values = values.ok_or_else(|| Error::new(Code::NotFound, format!("no table at {location}")))?;
        let batch = numbers(values);
        Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
    }

    /// Version n has the first n values; the only other moment is the year 2000, before any value.
    async fn open_at(&self, location: &Url, version: TableVersion) -> Result<Arc<dyn TableProvider>> {
        let values = self.tables.lock().unwrap()[location.as_str()].clone();
        let rows = match version {
            TableVersion::Number(rows) => usize::try_from(rows).unwrap(),
            TableVersion::Time(time) => {
                assert_eq!(time.to_rfc3339(), "2000-01-01T12:30:00+00:00");
                0
            }
        };
        let batch = numbers(values[..rows].to_vec());
        Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
    }

    async fn changes(
        &self,
        location: &Url,
        from: TableVersion,
        to: Option<TableVersion>,
    ) -> Result<Arc<dyn TableProvider>> {
        let numbers_of = |version| match version {
            TableVersion::Number(number) => i32::try_from(number).unwrap(),
            TableVersion::Time(_) => -1,
        };
        assert!(self.tables.lock().unwrap().contains_key(location.as_str()));
        let batch = numbers(std::iter::once(from).chain(to).map(numbers_of).collect());
        Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap()))
    }

    async fn exists(&self, location: &Url) -> Result<bool> {
        Ok(self.tables.lock().unwrap().contains_key(location.as_str()))
    }

    async fn create(&self, location: &Url, _: SchemaRef, _: &TableOptions) -> Result<()> {
        self.put(location, &[]);
        Ok(())
    }

    async fn notes(&self, _: &Url) -> Result<TableNotes> {
        Ok(TableNotes::default())
    }

    async fn comment(&self, location: &Url, _: Option<&str>, _: &str) -> Result<()> {
        Err(Error::new(Code::Unsupported, format!("a comment on {location}")))
    }

    async fn remove(&self, location: &Url) -> Result<()> {
        self.tables.lock().unwrap().remove(location.as_str());
        Ok(())
    }
}

#[derive(Debug)]
struct OneSystemTable;

#[async_trait]
impl SystemTables for OneSystemTable {
    fn names(&self) -> Vec<String> {
        vec!["lag".to_owned()]
    }

    fn schema(&self, name: &str) -> Option<SchemaRef> {
        (name == "lag").then(|| numbers(vec![]).schema())
    }

    async fn batch(&self, _: &str) -> Result<RecordBatch> {
        Ok(numbers(vec![7, 8]))
    }
}

struct House {
    catalog: Catalog,
    lake: Arc<MemoryLake>,
    folder: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Arc::new(MemoryLake::default());
        let base = SessionStateBuilder::new().with_default_features().build();
        let root = folder.path().join("lake");
        let catalog =
            Catalog::new(root.to_str().unwrap(), lake.clone(), Arc::new(OneSystemTable), base).unwrap();
        Self { catalog, lake, folder }
    }

    /// A table under the root, with its definition unless it is `found` only.
    fn table(&self, schema: &str, name: &str, values: &[i32], defined: bool) {
        let name = TableName::new(schema, name);
        let location = self.catalog.default_location(&name).unwrap();
        self.lake.put(&location, values);
        if defined {
            self.catalog.apply(Change::PutTable(TableDef::delta(name, location.to_string())));
        }
    }

    fn view(&self, text: &str) -> ViewDef {
        match parse(text, DEFAULT_SCHEMA) {
            Ok(Statement::CreateView(create)) => create.view,
            other => panic!("{other:?}"),
        }
    }

    async fn external(&self, text: &str) -> Result<TableDef> {
        match parse(&text.replace("FOLDER", self.folder.path().to_str().unwrap()), DEFAULT_SCHEMA) {
            Ok(Statement::CreateExternalTable(create)) => self.catalog.complete(create.table).await,
            other => panic!("{other:?}"),
        }
    }

    async fn query(&self, text: &str) -> Result<Vec<String>> {
        let builder = SessionStateBuilder::new().with_default_features();
        let state = self.catalog.session(builder, DEFAULT_SCHEMA).build();
        let text = text.replace("FOLDER", self.folder.path().to_str().unwrap());
        let query = match parse(&text, DEFAULT_SCHEMA)? {
            Statement::Query(query) => query,
            Statement::Show(show) => crate::dialect::parse_query(&show.query().unwrap())?,
            other => panic!("{other:?}"),
        };
        let plan = plan_query(&state, query).await?;
        let context = SessionContext::new_with_state(state);
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        let table = pretty_format_batches(&batches).unwrap().to_string();
        let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
        let words =
            |line: &str| line.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
        Ok(rows.map(words).collect())
    }
}

#[tokio::test]
async fn tables_are_their_newest_snapshot() {
    let house = House::new();
    house.table("public", "t", &[1, 2], true);
    assert_eq!(house.query("SELECT sum(n) FROM t").await.unwrap(), ["3"]);
    house.table("public", "t", &[1, 2, 3], true);
    assert_eq!(house.query("SELECT sum(n) FROM tidemill.public.t").await.unwrap(), ["6"]);
}

#[tokio::test]
async fn older_versions_stand_wherever_a_table_does() {
    let house = House::new();
    house.table("public", "t", &[1, 2, 3], true);
    house.table("sales", "orders", &[5, 6], false);
    for (text, answer) in [
        ("SELECT sum(n) FROM t VERSION AS OF 2", "3"),
        ("SELECT sum(t.n) FROM t FOR VERSION AS OF '1'", "1"),
        ("SELECT sum(old.n + t.n) FROM t JOIN t VERSION AS OF 2 AS old ON old.n = t.n", "6"),
        ("WITH t AS (SELECT n FROM sales.orders FOR SYSTEM_VERSION AS OF 1) SELECT sum(n) FROM t", "5"),
        ("SELECT count(*) FROM t TIMESTAMP AS OF '2000-01-01 12:30:00'", "0"),
        (
            "SELECT count(*) FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2000-01-01 00:00:00' + INTERVAL '12 hours 30 minutes'",
            "0",
        ),
        ("SELECT count(*) FROM t TIMESTAMP AS OF TIMESTAMP '2000-01-01 13:30:00+01:00'", "0"),
        ("SELECT sum(n) FROM t@v2", "3"),
        ("SELECT count(*) FROM \"t@20000101123000000\"", "0"),
        ("SELECT sum(n) FROM 'FOLDER/lake/public/t' VERSION AS OF 2", "3"),
    ] {
        assert_eq!(house.query(text).await.unwrap(), [answer], "{text}");
    }
    house
        .catalog
        .apply(Change::PutView(house.view("CREATE VIEW v AS SELECT max(n) AS m FROM t VERSION AS OF 2")));
    house.table("public", "t", &[7, 8, 9], true);
    assert_eq!(house.query("SELECT m FROM v").await.unwrap(), ["8"]);
}

#[tokio::test]
async fn changes_are_read_from_one_version_to_another() {
    let house = House::new();
    house.table("public", "t", &[1], true);
    house.table("sales", "orders", &[1], false);
    for (text, answer) in [
        ("SELECT n FROM table_changes('t', 2)", vec!["2"]),
        ("SELECT c.n FROM TABLE_CHANGES('sales.orders', 2, 5) AS c ORDER BY n", vec!["2", "5"]),
        ("SELECT n FROM table_changes(sales.orders, 3, now()) ORDER BY n", vec!["-1", "3"]),
        ("SELECT n FROM table_changes(t, '2026-01-01')", vec!["-1"]),
        ("SELECT n FROM table_changes('FOLDER/lake/public/t', 4)", vec!["4"]),
    ] {
        assert_eq!(house.query(text).await.unwrap(), answer, "{text}");
    }
    let error = house.query("SELECT n FROM table_changes('t')").await.unwrap_err();
    assert_eq!(error.code, Code::InvalidStatement);
}

#[tokio::test]
async fn what_is_no_version_is_refused() {
    let house = House::new();
    house.table("public", "t", &[1], true);
    house.catalog.apply(Change::PutView(house.view("CREATE VIEW v AS SELECT n FROM t")));
    for (text, code) in [
        ("SELECT n FROM v VERSION AS OF 1", Code::Unsupported),
        ("SELECT n FROM none VERSION AS OF 1", Code::UnknownObject),
        ("SELECT n FROM t VERSION AS OF -1", Code::InvalidStatement),
        ("SELECT n FROM t TIMESTAMP AS OF 'soon'", Code::InvalidStatement),
        ("SELECT n FROM t TIMESTAMP AS OF n", Code::InvalidStatement),
    ] {
        assert_eq!(house.query(text).await.unwrap_err().code, code, "{text}");
    }
}

#[tokio::test]
async fn what_lies_under_the_root_is_found_without_a_definition() {
    let house = House::new();
    house.table("sales", "orders", &[5], false);
    assert_eq!(house.query("SELECT n FROM sales.orders").await.unwrap(), ["5"]);
}

#[tokio::test]
async fn an_unknown_table_gets_a_suggestion_and_a_source_a_reason() {
    let house = House::new();
    house.table("public", "orders", &[5], true);
    house.catalog.apply(Change::PutSource("events".to_owned()));
    let error = house.query("SELECT * FROM oders").await.unwrap_err();
    assert_eq!(error.message, "no table `public.oders`");
    assert_eq!((error.code, error.hint.as_deref()), (Code::UnknownObject, Some("did you mean `orders`?")));
    let error = house.query("SELECT * FROM events").await.unwrap_err();
    assert_eq!(error.message, "`events` is a source, not a table");
    assert_eq!(house.query("SELECT count(*) FROM generate_series(1, 3)").await.unwrap(), ["3"]);
}

#[tokio::test]
async fn views_follow_their_tables_and_cannot_read_themselves() {
    let house = House::new();
    house.table("public", "t", &[1, 2], true);
    for text in ["CREATE VIEW a AS SELECT n * 10 AS n FROM t", "CREATE VIEW b AS SELECT max(n) AS m FROM a"] {
        let view = house.view(text);
        house.catalog.check_view(&view).await.unwrap();
        house.catalog.apply(Change::PutView(view));
    }
    assert_eq!(house.query("SELECT m FROM b").await.unwrap(), ["20"]);
    house.table("public", "t", &[3], true);
    assert_eq!(house.query("SELECT m FROM b").await.unwrap(), ["30"]);
    for text in ["CREATE VIEW a AS SELECT * FROM b", "CREATE VIEW a AS SELECT * FROM public.a"] {
        let error = house.catalog.check_view(&house.view(text)).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidStatement, "{text}");
    }
    let error = house.catalog.check_view(&house.view("CREATE VIEW c AS SELECT nn FROM t")).await.unwrap_err();
    assert_eq!((error.code, error.hint.as_deref()), (Code::UnknownColumn, Some("did you mean `n`?")));
}

#[tokio::test]
async fn system_tables_are_made_when_they_are_scanned() {
    let house = House::new();
    assert_eq!(house.query("SELECT sum(n) FROM tidemill.lag WHERE n > 7").await.unwrap(), ["8"]);
    assert_eq!(house.query("SELECT count(*) FROM tidemill.lag").await.unwrap(), ["2"]);
    assert_eq!(house.query("SELECT * FROM tidemill.log").await.unwrap_err().code, Code::UnknownObject);
}

#[tokio::test]
async fn the_information_schema_sees_everything() {
    let house = House::new();
    house.table("public", "t", &[1], true);
    house.table("sales", "orders", &[1], true);
    let view = house.view("CREATE VIEW v AS SELECT n FROM t");
    house.catalog.apply(Change::PutView(view));
    let tables = house.query("SHOW TABLES").await.unwrap();
    assert_eq!(tables, ["public t BASE TABLE", "public v VIEW", "sales orders BASE TABLE"]);
    let schemas = house.query("SHOW SCHEMAS").await.unwrap();
    assert_eq!(schemas, ["public true", "sales false", "tidemill false"]);
    assert_eq!(house.query("SHOW COLUMNS FROM v").await.unwrap(), ["n Int32 YES"]);
    house.catalog.apply(Change::DropView(TableName::new("public", "v")));
    assert!(house.query("SHOW COLUMNS FROM v").await.unwrap().is_empty());
}

#[tokio::test]
async fn files_become_tables() {
    let house = House::new();
    let file = |name: &str, text: &str| {
        let path = house.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    file("csv/day=2026-01-01/a.csv", "x;y\n1;a\n2;b\n");
    file("csv/day=2026-01-02/b.csv", "x;y\n3;c\n");
    file("csv/_SUCCESS", "");
    file("one.json", "{\"x\": 1.5}\n{\"x\": 2}\n");
    let csv = house
        .external(
            "CREATE EXTERNAL TABLE c STORED AS CSV PARTITIONED BY (day DATE) LOCATION 'FOLDER/csv' \
             OPTIONS ('format.has_header' 'true', 'format.delimiter' ';')",
        )
        .await
        .unwrap();
    assert!(csv.location.starts_with("file:///") && csv.schema.as_ref().unwrap().fields().len() == 2);
    house.catalog.apply(Change::PutTable(csv));
    assert_eq!(
        house
            .query("SELECT y, sum(x) FROM c WHERE day = DATE '2026-01-01' GROUP BY y ORDER BY y")
            .await
            .unwrap(),
        ["a 1", "b 2"]
    );
    assert_eq!(house.query("SELECT sum(x) FROM 'FOLDER/one.json'").await.unwrap(), ["3.5"]);
    file("array/a.json", "[{\"x\": 1}, {\"x\": 2}]");
    let array = "CREATE EXTERNAL TABLE a STORED AS JSON LOCATION 'FOLDER/array' \
                 OPTIONS ('format.newline_delimited' 'false')";
    house.catalog.apply(Change::PutTable(house.external(array).await.unwrap()));
    assert_eq!(house.query("SELECT sum(x) FROM a").await.unwrap(), ["3"]);

    let nothing = house.external("CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION 'FOLDER/csv'").await;
    assert_eq!(nothing.unwrap_err().code, Code::NotFound);
    let option = house
        .external(
            "CREATE EXTERNAL TABLE p STORED AS CSV LOCATION 'FOLDER/csv' OPTIONS ('format.hedder' 'true')",
        )
        .await;
    assert_eq!(option.unwrap_err().code, Code::BadOption);
    let encrypted = house
        .external(
            "CREATE EXTERNAL TABLE p (x INT) STORED AS PARQUET LOCATION 'FOLDER/csv' \
             OPTIONS ('format.crypto.file_decryption.footer_key_as_hex' '3031')",
        )
        .await
        .unwrap_err();
    assert_eq!(encrypted.code, Code::Unsupported);
    assert!(encrypted.message.contains("format.crypto.file_decryption.footer_key_as_hex"), "{encrypted}");
    let delta = house.external("CREATE EXTERNAL TABLE p STORED AS DELTA LOCATION 'FOLDER/csv'").await;
    assert_eq!(delta.unwrap_err().code, Code::NotFound);
    assert_eq!(house.query("SELECT * FROM 'FOLDER/none'").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_table_that_does_not_open_is_left_out_of_the_columns_only() {
    let house = House::new();
    house.table("public", "whole", &[1], true);
    house.table("public", "broken", &[1], true);
    house.lake.tables.lock().unwrap().retain(|url, _| !url.ends_with("broken"));
    let columns = "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public'";
    assert_eq!(house.query(columns).await.unwrap(), ["whole"]);
    assert_eq!(
        house.query("SHOW TABLES").await.unwrap(),
        ["public broken BASE TABLE", "public whole BASE TABLE"]
    );
    assert_eq!(house.query("SHOW TABLES IN public LIKE 'w*'").await.unwrap(), ["public whole BASE TABLE"]);
    assert_eq!(house.query("SELECT * FROM broken").await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn temporary_views_hide_tables_and_views_name_their_columns() {
    let mut house = House::new();
    house.table("public", "t", &[1, 2], true);
    let view = house.view("CREATE TEMP VIEW v (total) AS SELECT sum(n) FROM t");
    let plain = house.catalog.clone();
    house.catalog = plain.with_temporary(BTreeMap::from([(view.name.clone(), view)]));
    assert_eq!(house.query("SELECT total FROM v").await.unwrap(), ["3"]);
    assert_eq!(house.query("SHOW VIEWS").await.unwrap(), ["public v VIEW"]);
    let itself = house.view("CREATE OR REPLACE TEMP VIEW v AS SELECT * FROM v");
    assert_eq!(house.catalog.check_view(&itself).await.unwrap_err().code, Code::InvalidStatement);
    house.catalog = plain;
    assert_eq!(house.query("SELECT total FROM v").await.unwrap_err().code, Code::UnknownObject);
}

#[tokio::test]
async fn functions_read_the_tables_of_their_own_schema() {
    let house = House::new();
    house.table("sales", "t", &[5], true);
    house.table("public", "t", &[1], true);
    let function = |text: &str| match parse(text, "sales") {
        Ok(Statement::CreateFunction(create)) => create.function,
        other => panic!("{other:?}"),
    };
    let least = function(
        "CREATE FUNCTION least_n(than INT) RETURNS INT RETURN (SELECT min(n) FROM t WHERE n > than)",
    );
    house.catalog.check_function(&least).await.unwrap();
    house.catalog.apply(Change::PutFunction(least));
    assert_eq!(house.query("SELECT least_n(0) AS n").await.unwrap(), ["5"]);
    let refused = async |text: &str| house.catalog.check_function(&function(text)).await.unwrap_err().code;
    assert_eq!(refused("CREATE FUNCTION abs(x INT) RETURNS INT RETURN x").await, Code::AlreadyExists);
    assert_eq!(refused("CREATE FUNCTION f(x INT) RETURNS INT RETURN y").await, Code::UnknownColumn);
    assert_eq!(refused("CREATE FUNCTION f(x INT) RETURNS INT RETURN f(x)").await, Code::InvalidStatement);
    house.catalog.apply(Change::DropFunction("least_n".to_owned()));
    assert!(house.query("SELECT least_n(0) AS n").await.is_err());
}
