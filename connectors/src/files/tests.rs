use super::sink;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionContext};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{Code, Commit, Sink, SinkSpec, WriteScope, Written};

fn open(folder: &Path, format: &str) -> Arc<dyn Sink> {
    let spec = SinkSpec {
        connector: "files".to_owned(),
        target: folder.to_str().unwrap().to_owned(),
        options: BTreeMap::from([("format".to_owned(), format.to_owned())]),
    };
    sink(&spec, &Config::default()).unwrap()
}

fn batch(from: i64, to: i64) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef),
        (
            "name",
            Arc::new(StringViewArray::from_iter_values((from..to).map(|id| format!("name {id}"))))
                as ArrayRef,
        ),
    ])
    .unwrap()
}

async fn write(sink: &Arc<dyn Sink>, job: &str, run: u64, task: &str, rows: RecordBatch) -> Vec<Written> {
    let scope = WriteScope { job: job.to_owned(), run, task: task.to_owned() };
    let mut writer = sink.writer(&scope, &rows.schema()).await.unwrap();
    writer.write(rows).await.unwrap();
    writer.close().await.unwrap()
}

async fn count(folder: &Path) -> usize {
    let context = SessionContext::new();
    let frame = context.read_parquet(folder.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    frame.count().await.unwrap()
}

fn data_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn rows_are_seen_with_the_commit_and_once_only() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let sink = open(&folder, "parquet");
    let mut written = write(&sink, "load", 7, "b", batch(0, 10)).await;
    written.extend(write(&sink, "load", 7, "a", batch(10, 30)).await);
    assert_eq!(data_files(&folder), Vec::<String>::new());
    assert_eq!(sink.committed("load").await.unwrap(), None);

    assert_eq!(sink.commit("load", 7, &written).await.unwrap(), Commit::Committed { version: 0 });
    let files = data_files(&folder);
    assert_eq!(files, ["load-0000000007-00000.parquet", "load-0000000007-00001.parquet"]);
    assert_eq!(count(&folder).await, 30);
    assert_eq!(sink.committed("load").await.unwrap(), Some(7));
    assert_eq!(sink.count("load", 7).await.unwrap(), Some(30));

    assert_eq!(sink.commit("load", 7, &written).await.unwrap(), Commit::AlreadyCommitted);
    assert_eq!(data_files(&folder), files);
    assert_eq!(sink.committed("other").await.unwrap(), None);
    assert_eq!(sink.count("load", 8).await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_commit_that_broke_off_is_finished_by_its_repetition() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let sink = open(&folder, "parquet");
    let mut written = write(&sink, "p", 1, "a", batch(0, 5)).await;
    written.extend(write(&sink, "p", 1, "b", batch(5, 9)).await);
    // As after a crash between the first copy and the marker.
    let first = folder.join("_tidemill_staging/p/1/a.parquet");
    std::fs::copy(&first, folder.join("p-0000000001-00000.parquet")).unwrap();
    written.reverse();
    assert_eq!(sink.commit("p", 1, &written).await.unwrap(), Commit::Committed { version: 0 });
    assert_eq!(data_files(&folder).len(), 2);
    assert_eq!(count(&folder).await, 9);
    assert!(!first.exists(), "staged files go with the commit");
}

#[tokio::test]
async fn a_lost_file_shows_in_the_count_and_a_lost_staged_file_in_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let sink = open(&folder, "parquet");
    let written = write(&sink, "p", 1, "a", batch(0, 5)).await;
    sink.commit("p", 1, &written).await.unwrap();
    std::fs::remove_file(folder.join("p-0000000001-00000.parquet")).unwrap();
    assert_eq!(sink.count("p", 1).await.unwrap(), Some(0));

    let written = write(&sink, "p", 2, "a", batch(0, 5)).await;
    std::fs::remove_file(folder.join("_tidemill_staging/p/2/a.parquet")).unwrap();
    assert_eq!(sink.commit("p", 2, &written).await.unwrap_err().code, Code::NotFound);
    assert_eq!(sink.committed("p").await.unwrap(), Some(1));
}

#[tokio::test]
async fn an_aborted_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let sink = open(&folder, "parquet");
    let scope = WriteScope { job: "p".to_owned(), run: 1, task: "a".to_owned() };
    let rows = batch(0, 5);
    let mut writer = sink.writer(&scope, &rows.schema()).await.unwrap();
    writer.write(rows).await.unwrap();
    writer.abort().await;
    assert!(!folder.join("_tidemill_staging/p/1/a.parquet").exists());
}

#[tokio::test]
async fn csv_has_one_header_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let sink = open(&folder, "csv");
    let scope = WriteScope { job: "p".to_owned(), run: 1, task: "a".to_owned() };
    let mut writer = sink.writer(&scope, &batch(0, 1).schema()).await.unwrap();
    writer.write(batch(0, 3)).await.unwrap();
    writer.write(batch(3, 5)).await.unwrap();
    let written = writer.close().await.unwrap();
    sink.commit("p", 1, &written).await.unwrap();
    let text = std::fs::read_to_string(folder.join("p-0000000001-00000.csv")).unwrap();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["id,name", "0,name 0", "1,name 1", "2,name 2", "3,name 3", "4,name 4"]
    );
    let context = SessionContext::new();
    let frame = context.read_csv(folder.to_str().unwrap(), CsvReadOptions::default()).await.unwrap();
    assert_eq!(frame.count().await.unwrap(), 5);
}

#[test]
fn an_unknown_format_is_refused_by_name() {
    let spec = SinkSpec {
        connector: "files".to_owned(),
        target: "/tmp/x".to_owned(),
        options: BTreeMap::from([("format".to_owned(), "xml".to_owned())]),
    };
    assert_eq!(sink(&spec, &Config::default()).unwrap_err().code, Code::BadOption);
}
