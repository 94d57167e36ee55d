//! Tables that are made with their rows, and tables that take the place of others.

use super::changes::{snapshot, two_files};
use super::{LandsAndFails, batch, folder, fresh, number, over, query, rows_by_delta_rs, spec, write};
use crate::delta::DeltaLake;
use crate::delta::snapshot::DeltaSnapshot;
use crate::delta::table::Table;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemill_core::config::Config;
use tidemill_core::{Code, Sink};
use tidemill_engine::object_stores::object_store_for;
use tidemill_engine::{
    Alter, Change, LakeFormat, LakeSnapshot, Reads, TableDraft, TableOptions, TableVersion,
};
use url::Url;

fn lake() -> DeltaLake {
    DeltaLake::new(Config::default())
}

fn columns(columns: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn pairs(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// `a`, `b`, which is computed from it and partitions the table, and `c`.
async fn draft(url: &Url) -> TableDraft {
    let schema = columns(&[("a", DataType::Int64), ("b", DataType::Int32), ("c", DataType::Utf8)]);
    let options = TableOptions {
        partition_by: vec!["b".to_owned()],
        comment: Some("made".to_owned()),
        properties: vec![("owner".to_owned(), "me".to_owned())],
        column_comments: pairs(&[("c", "it's a text")]),
        generated: pairs(&[("b", "`A` % 2")]),
        constraints: pairs(&[("Small", "a < 100 AND b >= 0")]),
    };
    lake().draft(url, schema, &options).await.unwrap()
}

fn writer(url: &Url, draft: &TableDraft) -> Arc<dyn Sink> {
    crate::delta::sink(&spec(url, &[("definition", &draft.definition)]), &Config::default()).unwrap()
}

fn numbers(values: Vec<i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(values)) as ArrayRef)]).unwrap()
}

fn entry(dir: &tempfile::TempDir, version: u64) -> Vec<serde_json::Value> {
    let log = dir.path().join(format!("table/_delta_log/{version:020}.json"));
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn part(entry: &[serde_json::Value], key: &str) -> serde_json::Value {
    entry.iter().find_map(|line| line.get(key)).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_comes_with_its_rows_in_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let draft = draft(&url).await;
    let given: Vec<_> = draft.fillable.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(given, ["a", "c"]);
    let sink = writer(&url, &draft);
    let scope = tidemill_core::WriteScope { job: "j".into(), run: 1, task: "t".into() };
    let mut refused = sink.writer(&scope, &numbers(vec![100]).schema()).await.unwrap();
    let error = refused.write(numbers(vec![100])).await.unwrap_err();
    refused.abort().await;
    assert!(error.message.contains("`small`") && error.message.contains("a: 100"), "{error}");
    let adds = write(&sink, "j", 1, numbers(vec![1, 2, 3])).await;
    assert!(!lake().exists(&url).await.unwrap(), "rows are written before there is a table");
    let made =
        Change { adds: adds.clone(), becomes: Some(draft.clone()), ..Change::new("CREATE TABLE AS SELECT") };
    lake().establish(&url, made.clone()).await.unwrap();
    assert_eq!(rows_by_delta_rs(&url).await, (3, 0));
    assert_eq!(number(&url, "SELECT sum(b * 10 + a) FROM t").await, 26);
    assert_eq!(lake().establish(&url, made).await.unwrap_err().code, Code::AlreadyExists);

    let first = entry(&dir, 0);
    assert_eq!(part(&first, "commitInfo")["operation"], "CREATE TABLE AS SELECT");
    assert_eq!(part(&first, "protocol")["minWriterVersion"], 4);
    let metadata = part(&first, "metaData");
    assert_eq!(metadata["configuration"]["delta.constraints.small"], "a < 100 AND b >= 0");
    let schema: serde_json::Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    // Other engines ask that the expression is of the column's own type.
    assert_eq!(schema["fields"][1]["metadata"]["delta.generationExpression"], "CAST(`A` % 2 AS INT)");
    let notes = lake().notes(&url).await.unwrap();
    assert_eq!(
        (notes.comment.as_deref(), notes.column_comments["c"].as_str()),
        (Some("made"), "it's a text")
    );
    // Whoever writes later keeps the rules as well.
    let appended = write(&fresh(&url), "k", 1, numbers(vec![5])).await;
    fresh(&url).commit("k", 1, &appended).await.unwrap();
    assert_eq!(number(&url, "SELECT count(*) FROM t WHERE b = 1").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_takes_the_place_of_another_and_keeps_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let old = two_files(&url).await;
    let reader = lake().open(&url).await.unwrap();
    let late = write(&old, "fill", 3, batch(20..21, 3)).await;
    let (read, other) = (snapshot(&url).await, snapshot(&url).await);

    let draft = draft(&url).await;
    let adds = write(&writer(&url, &draft), "j", 1, numbers(vec![4, 7])).await;
    let replace =
        |adds| Change { removes: vec![0, 1], adds, becomes: Some(draft.clone()), ..Change::new("REPLACE") };
    assert_eq!(read.commit(replace(adds.clone())).await.unwrap(), 3);
    assert_eq!(rows_by_delta_rs(&url).await, (2, 3));
    assert_eq!(number(&url, "SELECT sum(a) FROM t WHERE b = 1").await, 7);
    let before = lake().open_at(&url, TableVersion::Number(2)).await.unwrap();
    for provider in [before, reader] {
        let rows = SessionContext::new().read_table(provider).unwrap();
        assert_eq!(rows.schema().field(3).name(), "ts");
        assert_eq!(rows.count().await.unwrap(), 20);
    }
    // Nobody who saw the other table commits to this one.
    assert_eq!(other.commit(replace(adds)).await.unwrap_err().code, Code::Conflict);
    let append = Change { adds: late.clone(), reads: Reads::Nothing, ..Change::new("WRITE") };
    assert_eq!(other.commit(append).await.unwrap_err().code, Code::Conflict);
    assert_eq!(old.commit("fill", 3, &late).await.unwrap_err().code, Code::NotFound);

    // The protocol stays as high as it was, and rows that must not go are not replaced.
    let plain =
        lake().draft(&url, columns(&[("x", DataType::Int64)]), &TableOptions::default()).await.unwrap();
    let read = snapshot(&url).await;
    let removes: Vec<usize> =
        read.files(&SessionContext::new().state(), &[]).unwrap().iter().map(|file| file.number).collect();
    let bare = Change { removes, becomes: Some(plain.clone()), ..Change::new("REPLACE") };
    assert_eq!(read.commit(bare).await.unwrap(), 4);
    assert_eq!(part(&entry(&dir, 4), "protocol"), serde_json::Value::Null);
    assert_eq!(rows_by_delta_rs(&url).await, (0, 4));
    let seen = query(&url, "SELECT * FROM t").await;
    assert!(!seen.contains('a'), "{seen}");
    let only = Alter::SetProperties(pairs(&[("delta.appendOnly", "true")]));
    snapshot(&url)
        .await
        .commit(Change { reads: Reads::Nothing, alter: vec![only], ..Change::new("SET TBLPROPERTIES") })
        .await
        .unwrap();
    let bare = Change { becomes: Some(plain), ..Change::new("REPLACE") };
    let error = snapshot(&url).await.commit(bare).await.unwrap_err();
    assert!(error.code == Code::Unsupported && error.message.contains("appends only"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_added_meanwhile_are_not_replaced_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let read = snapshot(&url).await;
    let added = write(&sink, "fill", 3, batch(20..21, 3)).await;
    sink.commit("fill", 3, &added).await.unwrap();
    let change =
        Change { removes: vec![0, 1], becomes: Some(draft(&url).await), ..Change::new("REPLACE TABLE") };
    let error = read.commit(change).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "{error}");
    assert_eq!(rows_by_delta_rs(&url).await, (21, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_commit_that_lands_and_reports_an_error_made_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let inner = object_store_for(&url, &Config::default()).unwrap();
    let store = Arc::new(LandsAndFails { inner, puts: AtomicUsize::new(1), failed: AtomicUsize::new(0) });
    over(store.clone(), &url).prepare(&batch(0..1, 1).schema()).await.unwrap();
    assert_eq!(store.failed.load(Ordering::SeqCst), 1);
    assert_eq!(rows_by_delta_rs(&url).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_lands_and_reports_an_error_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    two_files(&url).await;
    let draft = draft(&url).await;
    let adds = write(&writer(&url, &draft), "j", 1, numbers(vec![4, 7])).await;
    let inner = object_store_for(&url, &Config::default()).unwrap();
    let store = Arc::new(LandsAndFails { inner, puts: AtomicUsize::new(1), failed: AtomicUsize::new(0) });
    let table = Arc::new(Table::over(store.clone(), &url).unwrap());
    let loaded = table.demand().await.unwrap();
    let read = DeltaSnapshot::new(table, loaded);
    let change = Change { removes: vec![0, 1], adds, becomes: Some(draft), ..Change::new("REPLACE") };
    assert_eq!(read.commit(change).await.unwrap(), 3);
    assert_eq!(store.failed.load(Ordering::SeqCst), 1);
    assert_eq!(rows_by_delta_rs(&url).await, (2, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_writers_could_not_keep_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let schema = columns(&[
        ("a", DataType::Int64),
        ("b", DataType::Int64),
        ("c", DataType::Int64),
        ("f", DataType::Boolean),
    ]);
    let refused = async |generated: &[(&str, &str)], constraints: &[(&str, &str)]| {
        let options = TableOptions {
            generated: pairs(generated),
            constraints: pairs(constraints),
            ..TableOptions::default()
        };
        lake().draft(&url, schema.clone(), &options).await.unwrap_err()
    };
    for (expression, code, word) in [
        ("sparkish(a)", Code::Unsupported, "sparkish"),
        ("c + 1", Code::InvalidStatement, "`c` is generated itself"),
        ("b + 1", Code::InvalidStatement, "`b` is generated itself"),
        ("a + random()", Code::InvalidStatement, "another value each time"),
        ("extract(epoch FROM now())", Code::InvalidStatement, "another value each time"),
        ("make_array(a)", Code::InvalidStatement, "the column Int64"),
    ] {
        let error = refused(&[("b", expression), ("c", "a")], &[]).await;
        assert!(error.code == code && error.message.contains(word), "{expression}: {error}");
        assert!(error.hint.is_some(), "{expression}");
    }
    assert_eq!(refused(&[], &[("odd", "hex(a) <> 'FF'")]).await.code, Code::Unsupported);
    assert_eq!(refused(&[], &[("sum", "a + 1")]).await.code, Code::TypeMismatch);
    let sound = [("b", "CAST(a + 1 AS SMALLINT)"), ("c", "CAST(f AS INT)")];
    let options = TableOptions { generated: pairs(&sound), ..TableOptions::default() };
    lake().draft(&url, schema, &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_computed_value_that_its_column_cannot_hold_is_no_null() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let options = TableOptions { generated: pairs(&[("b", "a + 1")]), ..TableOptions::default() };
    let schema = columns(&[("a", DataType::Int64), ("b", DataType::Int32)]);
    lake().create(&url, schema, &options).await.unwrap();
    let scope = tidemill_core::WriteScope { job: "j".into(), run: 1, task: "t".into() };
    let rows = numbers(vec![1, 3_000_000_000]);
    let mut writer = fresh(&url).writer(&scope, &rows.schema()).await.unwrap();
    let error = writer.write(rows).await.unwrap_err();
    writer.abort().await;
    assert!(error.message.contains("3000000001"), "{error}");
}
