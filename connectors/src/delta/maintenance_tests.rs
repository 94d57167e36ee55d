//! The care of a table, as its readers see it.

use super::DeltaLake;
use super::tests::{batch, folder, fresh, number, rows_by_delta_rs, spec, write};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidemill_core::config::Config;
use tidemill_core::{Code, Sink};
use tidemill_engine::maintenance::Vacuum;
use tidemill_engine::{LakeFormat, Maintenance, TableVersion};
use url::Url;

fn lake() -> DeltaLake {
    DeltaLake::new(Config::default())
}

/// Ten rows by each of the runs.
async fn append(url: &Url, runs: std::ops::RangeInclusive<u64>) -> Arc<dyn Sink> {
    let sink = fresh(url);
    sink.prepare(&batch(0..1, 1).schema()).await.unwrap();
    for run in runs {
        let first = i64::try_from(run).unwrap() * 10;
        let written = write(&sink, "p", run, batch(first..first + 10, 1)).await;
        sink.commit("p", run, &written).await.unwrap();
    }
    sink
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a Arc<dyn Array> {
    rows.column_by_name(name).unwrap()
}

fn long(rows: &RecordBatch, name: &str) -> i64 {
    column(rows, name).as_primitive::<Int64Type>().value(0)
}

fn texts(rows: &RecordBatch, name: &str) -> Vec<String> {
    column(rows, name).as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

fn map(rows: &RecordBatch, name: &str, row: usize) -> BTreeMap<String, String> {
    let entries = column(rows, name).as_map().value(row);
    let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
    let both = keys.iter().zip(values);
    both.map(|(key, value)| (key.unwrap().to_owned(), value.unwrap_or_default().to_owned())).collect()
}

fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    files.sort();
    files
}

fn make_old(file: &Path, age: Duration) {
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_detail_tell_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    append(&url, 1..=3).await;
    let history = lake().history(&url, None).await.unwrap();
    assert_eq!(column(&history, "version").as_primitive::<Int64Type>().values(), &[3, 2, 1, 0]);
    assert_eq!(texts(&history, "operation")[0], "STREAMING UPDATE");
    assert_eq!(texts(&history, "operation")[3], "CREATE TABLE");
    assert_eq!(map(&history, "operationParameters", 0)["epochId"], "3");
    assert!(column(&history, "isBlindAppend").as_boolean().value(0));
    assert!(column(&history, "timestamp").null_count() == 0);
    let last = lake().history(&url, Some(1)).await.unwrap();
    assert_eq!(column(&last, "version").as_primitive::<Int64Type>().values(), &[3]);

    let detail = lake().detail(&url).await.unwrap();
    assert_eq!((detail.num_rows(), long(&detail, "numFiles")), (1, 3));
    let bytes: u64 =
        data_files(&dir.path().join("table")).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert_eq!(long(&detail, "sizeInBytes"), i64::try_from(bytes).unwrap());
    assert_eq!(texts(&detail, "format"), ["delta"]);
    assert!(column(&detail, "createdAt").is_valid(0) && column(&detail, "lastModified").is_valid(0));

    // Rows of a statement are no epoch.
    let options = [("operation", "WRITE"), ("blind_append", "false")];
    let sink = crate::delta::sink(&spec(&url, &options), &Config::default()).unwrap();
    let written = write(&sink, "job", 1, batch(40..47, 1)).await;
    sink.commit("job", 1, &written).await.unwrap();
    sink.commit("job", 1, &written).await.unwrap();
    let last = lake().history(&url, Some(1)).await.unwrap();
    assert_eq!(long(&last, "version"), 4);
    assert_eq!(texts(&last, "operation"), ["WRITE"]);
    let parameters = map(&last, "operationParameters", 0);
    assert_eq!((parameters["mode"].as_str(), parameters["partitionBy"].as_str()), ("Append", "[]"));
    assert_eq!(map(&last, "operationMetrics", 0)["numOutputRows"], "7");
    assert!(!column(&last, "isBlindAppend").as_boolean().value(0));
    assert_eq!(rows_by_delta_rs(&url).await, (37, 4));

    let nowhere = Url::from_file_path(dir.path().join("none")).unwrap();
    assert_eq!(lake().history(&nowhere, None).await.unwrap_err().code, Code::NotFound);
    assert_eq!(lake().detail(&nowhere).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_version_is_the_newest_and_the_sink_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = append(&url, 1..=3).await;
    let restored = lake().restore(&url, TableVersion::Number(1)).await.unwrap();
    assert_eq!((long(&restored, "num_removed_files"), long(&restored, "num_restored_files")), (2, 0));
    assert_eq!(long(&restored, "num_of_files_after_restore"), 1);
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 10);
    assert_eq!(rows_by_delta_rs(&url).await, (10, 4));
    // What was committed stays committed, or recovery would write it again.
    assert_eq!(sink.committed("p").await.unwrap(), Some(3));
    let written = write(&sink, "p", 4, batch(40..50, 1)).await;
    sink.commit("p", 4, &written).await.unwrap();
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 20);

    let back = lake().restore(&url, TableVersion::Number(3)).await.unwrap();
    assert_eq!((long(&back, "num_removed_files"), long(&back, "num_restored_files")), (1, 2));
    assert_eq!(number(&url, "SELECT sum(id) FROM t").await, (10..40).sum::<i64>());

    assert_eq!(lake().restore(&url, TableVersion::Number(99)).await.unwrap_err().code, Code::NotFound);
    assert_eq!(lake().restore(&url, TableVersion::Number(6)).await.unwrap_err().code, Code::InvalidStatement);
    for time in ["1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        let time = TableVersion::Time(time.parse().unwrap());
        assert_eq!(lake().restore(&url, time).await.unwrap_err().code, Code::NotFound);
        assert_eq!(lake().open_at(&url, time).await.unwrap_err().code, Code::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_means_the_newest_version_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    append(&url, 1..=2).await;
    let log = dir.path().join("table/_delta_log");
    for (version, hours) in [(0, 4), (1, 3), (2, 1)] {
        make_old(&log.join(format!("{version:020}.json")), Duration::from_secs(hours * 3600));
    }
    let two_hours_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    let time = TableVersion::Time(two_hours_ago.into());
    // By the same rule for who reads a version and who makes it the newest again.
    let then = datafusion::prelude::SessionContext::new();
    let then = then.read_table(lake().open_at(&url, time).await.unwrap()).unwrap();
    assert_eq!(then.count().await.unwrap(), 10);
    lake().restore(&url, time).await.unwrap();
    assert_eq!(number(&url, "SELECT sum(id) FROM t").await, (10..20).sum::<i64>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vacuum_removes_what_no_version_needs_and_spares_running_writes() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let table = dir.path().join("table");
    let sink = append(&url, 1..=2).await;
    let live = data_files(&table);
    let replaced = write(&sink, "p", 3, batch(30..40, 1)).await;
    let replaced_file: Vec<PathBuf> =
        data_files(&table).into_iter().filter(|file| !live.contains(file)).collect();
    sink.commit("p", 3, &replaced).await.unwrap();
    lake().restore(&url, TableVersion::Number(2)).await.unwrap();
    // Two writes that never came to their commit: one goes on, one died two days ago.
    let known = data_files(&table);
    write(&sink, "q", 1, batch(0..10, 1)).await;
    let running: Vec<PathBuf> = data_files(&table).into_iter().filter(|file| !known.contains(file)).collect();
    let dead = table.join("part-dead.parquet");
    std::fs::copy(&live[0], &dead).unwrap();
    make_old(&dead, 2 * DAY);

    let options =
        |retain, dry_run| Vacuum { retain: Some(retain), check_retention: true, orphans_for: DAY, dry_run };
    let error = lake().vacuum(&url, &options(Duration::ZERO, true)).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidStatement);
    assert!(error.message.contains("168 hours"), "{error}");

    // By the retention of a week nothing goes, and without the check what is not needed.
    assert!(lake().vacuum(&url, &options(7 * DAY, false)).await.unwrap().is_empty());
    let forced = |dry_run| Vacuum { check_retention: false, ..options(Duration::ZERO, dry_run) };
    let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected = vec![name(&dead), name(&replaced_file[0])];
    expected.sort();
    assert_eq!(lake().vacuum(&url, &forced(true)).await.unwrap(), expected);
    assert!(dead.exists() && replaced_file[0].exists(), "DRY RUN removed something");
    assert_eq!(lake().vacuum(&url, &forced(false)).await.unwrap(), expected);
    assert!(!dead.exists() && !replaced_file[0].exists());
    assert!(running[0].exists(), "a file of a running write was removed");
    assert!(live.iter().all(|file| file.exists()));
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 20);
    let error = lake().restore(&url, TableVersion::Number(3)).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound, "{error}");
    assert!(error.hint.unwrap().contains("VACUUM"));
    let history = lake().history(&url, Some(2)).await.unwrap();
    assert!(texts(&history, "operation").iter().all(|operation| operation.starts_with("VACUUM")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_files_become_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    append(&url, 1..=2).await;
    let files = data_files(&dir.path().join("table"));
    let plain = dir.path().join("plain");
    for (file, day) in files.iter().zip(["2026-01-01", "2026-01-02"]) {
        let folder = plain.join(format!("part={day}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::copy(file, folder.join("a.parquet")).unwrap();
    }
    let url = Url::from_file_path(&plain).unwrap();
    let none = Arc::new(Schema::empty());
    let error = lake().convert(&url, &none).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidStatement, "{error}");
    let by = Arc::new(Schema::new(vec![Field::new("part", DataType::Date32, true)]));
    let converted = lake().convert(&url, &by).await.unwrap();
    assert_eq!(long(&converted, "numConvertedFiles"), 2);
    assert_eq!(number(&url, "SELECT count(*) FROM t WHERE part = DATE '2026-01-02'").await, 10);
    assert_eq!(number(&url, "SELECT sum(id) FROM t").await, (10..30).sum::<i64>());
    assert_eq!(lake().convert(&url, &by).await.unwrap_err().code, Code::AlreadyExists);
    let empty = Url::from_file_path(dir.path().join("empty")).unwrap();
    assert_eq!(lake().convert(&empty, &none).await.unwrap_err().code, Code::NotFound);
}
