//! Changes beside each other: what may follow what, and what must not.

use super::{LandsAndFails, batch, folder, fresh, number, query, rows_by_delta_rs, spec, write};
use crate::delta::snapshot::DeltaSnapshot;
use crate::delta::table::Table;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::{SessionContext, col, lit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemill_core::config::Config;
use tidemill_core::{Code, Sink, Written};
use tidemill_engine::object_stores::object_store_for;
use tidemill_engine::{Alter, Change, LakeFile, LakeFormat, LakeSnapshot, Reads};
use url::Url;

/// The newest snapshot, by a handle of its own, as another process has it.
pub(super) async fn snapshot(url: &Url) -> DeltaSnapshot {
    let store = object_store_for(url, &Config::default()).unwrap();
    let table = Arc::new(Table::over(store, url).unwrap());
    let loaded = table.demand().await.unwrap();
    DeltaSnapshot::new(table, loaded)
}

/// Two files: ids 0..10 of day 1 and ids 10..20 of day 2.
pub(super) async fn two_files(url: &Url) -> Arc<dyn Sink> {
    let sink = fresh(url);
    sink.prepare(&batch(0..1, 1).schema()).await.unwrap();
    for (run, day) in [(1, 1), (2, 2)] {
        let first = (i64::from(day) - 1) * 10;
        let written = write(&sink, "fill", run, batch(first..first + 10, day)).await;
        sink.commit("fill", run, &written).await.unwrap();
    }
    sink
}

fn files(snapshot: &DeltaSnapshot, first: i64, end: i64) -> Vec<LakeFile> {
    let filter = col("id").gt_eq(lit(first)).and(col("id").lt(lit(end)));
    snapshot.files(&SessionContext::new().state(), &[filter]).unwrap()
}

/// Puts `adds` in the place of the files that may hold the id `first`.
fn rewrite(snapshot: &DeltaSnapshot, first: i64, adds: Vec<Written>) -> Change {
    Change {
        removes: files(snapshot, first, first + 1).iter().map(|file| file.number).collect(),
        adds,
        reads: Reads::Matching(vec![col("id").eq(lit(first))]),
        ..Change::new("DELETE")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewrite_removes_and_adds_in_one_version() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let read = snapshot(&url).await;
    let touched = files(&read, 3, 4);
    assert_eq!(touched.iter().map(|file| file.rows).collect::<Vec<_>>(), [Some(10)]);
    let table = read.table(Some(&[touched[0].number]), Some("file number")).unwrap();
    let context = SessionContext::new();
    context.register_table("t", table).unwrap();
    let rows = context.sql("SELECT \"file number\" AS n, count(*), min(id) FROM t GROUP BY 1").await.unwrap();
    let rows =
        arrow::util::pretty::pretty_format_batches(&rows.collect().await.unwrap()).unwrap().to_string();
    assert!(rows.contains(&format!("| {} | 10       | 0  ", touched[0].number)), "{rows}");

    let kept = write(&sink, "x", 1, batch(4..10, 1)).await;
    assert_eq!(read.commit(rewrite(&read, 3, kept)).await.unwrap(), read.version() + 1);
    assert_eq!(number(&url, "SELECT sum(id) FROM t").await, (4..20).sum::<i64>());
    assert_eq!(rows_by_delta_rs(&url).await, (16, 3));
    // Everything gone, no file left.
    let read = snapshot(&url).await;
    let all = Change { removes: vec![0, 1], ..Change::new("TRUNCATE") };
    read.commit(all).await.unwrap();
    assert_eq!(rows_by_delta_rs(&url).await, (0, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_other_rows_go_together_and_of_the_same_rows_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let (first, second, third) = (snapshot(&url).await, snapshot(&url).await, snapshot(&url).await);
    let kept = write(&sink, "x", 1, batch(1..10, 1)).await;
    first.commit(rewrite(&first, 0, kept.clone())).await.unwrap();
    // Another file, and what the first one added cannot hold its rows.
    let others = write(&sink, "x", 2, batch(11..20, 2)).await;
    second.commit(rewrite(&second, 10, others.clone())).await.unwrap();
    // The same file.
    let error = third.commit(rewrite(&third, 0, kept)).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "{error}");
    assert!(error.hint.unwrap().contains("again"));
    // Another file, but it read everything.
    let whole = Change { reads: Reads::Everything, ..rewrite(&third, 10, Vec::new()) };
    assert_eq!(third.commit(whole).await.unwrap_err().code, Code::Conflict);
    assert_eq!(rows_by_delta_rs(&url).await, (18, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_disturb_nobody_unless_the_table_is_serializable() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let read = snapshot(&url).await;
    let appended = write(&sink, "fill", 3, batch(0..5, 3)).await;
    sink.commit("fill", 3, &appended).await.unwrap();
    let kept = write(&sink, "x", 1, batch(1..10, 1)).await;
    read.commit(rewrite(&read, 0, kept)).await.unwrap();
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 24);

    let strict = Alter::SetProperties([("delta.isolationLevel".into(), "Serializable".into())].into());
    let read = snapshot(&url).await;
    read.commit(Change { reads: Reads::Nothing, alter: vec![strict], ..Change::new("SET TBLPROPERTIES") })
        .await
        .unwrap();
    let read = snapshot(&url).await;
    let appended = write(&sink, "fill", 4, batch(10..12, 4)).await;
    sink.commit("fill", 4, &appended).await.unwrap();
    let kept = write(&sink, "x", 2, batch(11..20, 2)).await;
    let error = read.commit(rewrite(&read, 10, kept)).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "{error}");
    // Rows that it would not have seen are no matter.
    let kept = write(&sink, "x", 3, batch(2..10, 1)).await;
    read.commit(rewrite(&read, 1, kept)).await.unwrap();
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 26 - 9 - 5 + 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_goes_beside_appends_but_not_beside_a_rewrite_of_its_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let (compaction, late, delete) = (snapshot(&url).await, snapshot(&url).await, snapshot(&url).await);
    let appended = write(&sink, "fill", 3, batch(20..30, 3)).await;
    sink.commit("fill", 3, &appended).await.unwrap();
    let merged = write(&sink, "x", 1, batch(0..20, 1)).await;
    let compact = |adds| Change {
        removes: vec![0, 1],
        adds,
        reads: Reads::Removed,
        data_change: false,
        ..Change::new("OPTIMIZE")
    };
    compaction.commit(compact(merged.clone())).await.unwrap();
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 30);
    assert_eq!(late.commit(compact(merged)).await.unwrap_err().code, Code::Conflict);
    // The rows that it would rewrite are in another file now.
    let kept = write(&sink, "x", 2, batch(1..10, 1)).await;
    assert_eq!(delete.commit(rewrite(&delete, 0, kept)).await.unwrap_err().code, Code::Conflict);
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_changed_and_conflicts_with_every_other_change() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let (read, late) = (snapshot(&url).await, snapshot(&url).await);
    let columns = Arc::new(Schema::new(vec![Field::new("note", DataType::Utf8, true)]));
    let alter = |alter| Change { reads: Reads::Nothing, alter: vec![alter], ..Change::new("ADD COLUMNS") };
    read.commit(alter(Alter::AddColumns(columns.clone()))).await.unwrap();
    assert!(query(&url, "SELECT id, note FROM t WHERE id = 3").await.contains("| 3  |      |"));
    let error = late.commit(rewrite(&late, 0, Vec::new())).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "{error}");

    let comment =
        |column: &str| alter(Alter::SetColumnComment { column: column.into(), comment: "by hand".into() });
    snapshot(&url).await.commit(comment("note")).await.unwrap();
    let lake = crate::delta::DeltaLake::new(Config::default());
    assert_eq!(lake.notes(&url).await.unwrap().column_comments["note"], "by hand");
    let error = snapshot(&url).await.commit(comment("not")).await.unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `note`?"));

    let read = snapshot(&url).await;
    let again = read.commit(alter(Alter::AddColumns(columns))).await.unwrap_err();
    assert_eq!(again.code, Code::AlreadyExists);
    let unknown = Alter::SetProperties([("delta.isolationlevel".into(), "Serializable".into())].into());
    let error = read.commit(alter(unknown)).await.unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `delta.isolationLevel`?"));
    // Writers that began before go on: they only lack the new column.
    let written = write(&sink, "fill", 3, batch(20..21, 3)).await;
    sink.commit("fill", 3, &written).await.unwrap();
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_come_with_the_rows_that_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    two_files(&url).await;
    let columns = Arc::new(Schema::new(vec![Field::new("note", DataType::Utf8View, true)]));
    let options = serde_json::to_string(columns.as_ref()).unwrap();
    let sink = crate::delta::sink(&spec(&url, &[("add_columns", &options)]), &Config::default()).unwrap();
    let rows = batch(20..23, 2);
    let notes = Arc::new(arrow::array::StringViewArray::from(vec![Some("new"), None, Some("newer")]));
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(columns.field(0).clone()));
    let mut arrays = rows.columns().to_vec();
    arrays.push(notes);
    let rows = arrow::array::RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let adds = write(&sink, "x", 1, rows).await;

    let read = snapshot(&url).await;
    let change = Change { adds, alter: vec![Alter::AddColumns(columns)], ..Change::new("MERGE") };
    assert_eq!(read.commit(change).await.unwrap(), read.version() + 1);
    let seen = query(&url, "SELECT count(*) AS n, count(note) AS notes, max(note) AS note FROM t").await;
    assert!(seen.contains("| 23 | 2     | newer |"), "{seen}");
    assert_eq!(rows_by_delta_rs(&url).await, (23, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_lands_and_reports_an_error_is_committed_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let kept = write(&sink, "x", 1, batch(1..10, 1)).await;
    let inner = object_store_for(&url, &Config::default()).unwrap();
    let store = Arc::new(LandsAndFails { inner, puts: AtomicUsize::new(1), failed: AtomicUsize::new(0) });
    let table = Arc::new(Table::over(store.clone(), &url).unwrap());
    let loaded = table.demand().await.unwrap();
    let read = DeltaSnapshot::new(table, loaded);
    assert_eq!(read.commit(rewrite(&read, 0, kept)).await.unwrap(), 3);
    assert_eq!(store.failed.load(Ordering::SeqCst), 1);
    assert_eq!(rows_by_delta_rs(&url).await, (19, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_writer_keeps_the_constraints_and_none_that_began_before_them_commits() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = two_files(&url).await;
    let before = write(&sink, "fill", 3, batch(20..21, 3)).await;
    let check = Alter::AddConstraint { name: "Small".into(), expression: "`ID` < 100".into() };
    let read = snapshot(&url).await;
    read.commit(Change { alter: vec![check], ..Change::new("ADD CONSTRAINT") }).await.unwrap();
    let error = sink.commit("fill", 3, &before).await.unwrap_err();
    assert!(error.code == Code::Conflict && error.message.contains("CHECK small"), "{error}");

    let sink = fresh(&url);
    let rows = batch(100..101, 3);
    let scope = tidemill_core::WriteScope { job: "j".into(), run: 1, task: "t".into() };
    let mut writer = sink.writer(&scope, &rows.schema()).await.unwrap();
    let error = writer.write(rows).await.unwrap_err();
    writer.abort().await;
    assert!(error.message.contains("`small`") && error.message.contains("id: 100"), "{error}");
    let written = write(&sink, "fill", 3, batch(20..21, 3)).await;
    sink.commit("fill", 3, &written).await.unwrap();
    let read = snapshot(&url).await;
    let alter = Alter::DropConstraint { name: "small".into(), if_exists: false };
    read.commit(Change { reads: Reads::Nothing, alter: vec![alter], ..Change::new("DROP CONSTRAINT") })
        .await
        .unwrap();
    write(&fresh(&url), "fill", 4, batch(100..101, 3)).await;
}
