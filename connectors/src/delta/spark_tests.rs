//! Tables that Spark wrote (`tests/interop`), and the rows that Spark read from them.

use super::DeltaLake;
use arrow::array::Array;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{Code, Result};
use tidemill_engine::{LakeFormat, TableVersion};
use url::Url;

#[derive(Deserialize)]
struct Expected {
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    table: String,
    sql: String,
    rows: Vec<Vec<Option<String>>>,
}

fn tables() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/tables").canonicalize().unwrap()
}

fn url(table: &str) -> Url {
    Url::from_file_path(tables().join(table)).unwrap()
}

/// A session with the table as `t`, and the query without versions, which the parser would take away.
async fn session(table: &str, sql: &str) -> Result<(SessionContext, String)> {
    let lake = DeltaLake::new(Config::default());
    let sql = sql.replace("{t}", "t");
    if let Some((before, call)) = sql.split_once("table_changes('t', ") {
        let (versions, after) = call.split_once(')').unwrap();
        let mut versions = versions.split(", ").map(|number| TableVersion::Number(number.parse().unwrap()));
        let provider = lake.changes(&url(table), versions.next().unwrap(), versions.next()).await?;
        return Ok((over(provider), format!("{before} t {after}")));
    }
    let (provider, sql) = match sql.split_once(" VERSION AS OF ") {
        Some((before, after)) => {
            let (number, after) = after.split_once(' ').unwrap_or((after, ""));
            let version = TableVersion::Number(number.parse().unwrap());
            (lake.open_at(&url(table), version).await?, format!("{before} {after}"))
        }
        None => (lake.open(&url(table)).await?, sql),
    };
    Ok((over(provider), sql))
}

fn over(provider: Arc<dyn TableProvider>) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    context.register_table("t", provider).unwrap();
    context
}

async fn rows(table: &str, sql: &str) -> Vec<Vec<Option<String>>> {
    let (context, sql) = session(table, sql).await.unwrap();
    let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in batches {
        let formatters: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let value = |(column, formatter): (&arrow::array::ArrayRef, &ArrayFormatter<'_>)| {
                column.is_valid(row).then(|| formatter.value(row).to_string())
            };
            rows.push(batch.columns().iter().zip(&formatters).map(value).collect());
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_table_that_spark_wrote_has_the_rows_that_spark_reads() {
    let expected = std::fs::read(tables().join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_slice(&expected).unwrap();
    let mut compared = 0;
    for Answer { table, sql, rows: expected } in &expected.answers {
        assert_eq!(&rows(table, sql).await, expected, "{table}: {sql}");
        compared += 1;
    }
    assert!(compared >= 62, "only {compared} queries were compared");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_dropped_and_counted_without_reading_them() {
    let plan = async |table: &str, sql: &str| {
        let (context, sql) = session(table, sql).await.unwrap();
        let plan = context.sql(&sql).await.unwrap().create_physical_plan().await.unwrap();
        displayable(plan.as_ref()).indent(true).to_string()
    };
    // The files that hold rows of which none is deleted are scanned plainly.
    let both = plan("deletion_vectors", "SELECT id FROM {t}").await;
    assert!(both.contains("SelectRowsExec") && both.contains("UnionExec"), "{both}");
    let later = plan("deletion_vectors", "SELECT id FROM {t} WHERE name > 'm' AND id > 2000").await;
    assert!(later.contains("EmptyExec"), "{later}");
    let count = plan("deletion_vectors", "SELECT count(*) FROM {t}").await;
    assert!(!count.contains("SelectRowsExec"), "the log has the number of rows: {count}");
    // By the names of the table, though files and statistics have others.
    for table in ["mapping_name", "mapping_id"] {
        let pruned = plan(table, "SELECT id FROM {t} WHERE id > 4 AND date > DATE '2026-01-01'").await;
        assert_eq!(pruned.matches(".parquet").count(), 1, "{pruned}");
        assert!(pruned.contains("RelabelExec") && pruned.contains("predicate=col-"), "{pruned}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_not_there_is_an_error_that_says_which_are() {
    let lake = DeltaLake::new(Config::default());
    let error = lake.open_at(&url("merged"), TableVersion::Number(9)).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    assert_eq!(error.hint.as_deref(), Some("versions 0 to 2 are there"));
    let early = TableVersion::Time("2001-01-01T00:00:00Z".parse().unwrap());
    let error = lake.open_at(&url("merged"), early).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let late = TableVersion::Time("2999-01-01T00:00:00Z".parse().unwrap());
    assert_eq!(lake.open_at(&url("merged"), late).await.unwrap_err().code, Code::NotFound);
}

/// Copies a table, so that the times of its commits can be set.
fn copied(table: &str, folder: &Path) -> Url {
    let (from, to) = (tables().join(table), folder.join(table));
    for part in ["", "_delta_log"] {
        std::fs::create_dir_all(to.join(part)).unwrap();
        for file in std::fs::read_dir(from.join(part)).unwrap().map(std::result::Result::unwrap) {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), to.join(part).join(file.file_name())).unwrap();
            }
        }
    }
    Url::from_file_path(to).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_the_newest_version_that_is_not_later() {
    let folder = tempfile::tempdir().unwrap();
    let lake = DeltaLake::new(Config::default());
    let url = copied("merged", folder.path());
    for (version, second) in [(0, 10), (1, 20), (2, 30)] {
        let name = format!("_delta_log/{version:020}.json");
        let file =
            std::fs::File::options().append(true).open(url.to_file_path().unwrap().join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(second)).unwrap();
    }
    let count = async |second: i64| {
        let time = chrono::DateTime::from_timestamp(second, 0).unwrap();
        let provider = lake.open_at(&url, TableVersion::Time(time)).await?;
        let rows = SessionContext::new().read_table(provider).unwrap().count().await.unwrap();
        Ok::<_, tidemill_core::Error>(rows)
    };
    assert_eq!(count(10).await.unwrap(), 0);
    assert_eq!(count(29).await.unwrap(), 20);
    assert_eq!(count(31).await.unwrap(), 29);
    let error = count(9).await.unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("the oldest that can be read is 0 of 1970-01-01T00:00:10.000Z"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_were_not_recorded_are_refused() {
    let lake = DeltaLake::new(Config::default());
    let error = lake.changes(&url("merged"), TableVersion::Number(0), None).await.unwrap_err();
    assert!(error.code == Code::Unsupported && error.message.contains("change data feed"), "{error}");
    let url = url("change_data_feed");
    let backwards = lake.changes(&url, TableVersion::Number(3), Some(TableVersion::Number(2))).await;
    assert_eq!(backwards.unwrap_err().code, Code::InvalidStatement);
    let later = lake.changes(&url, TableVersion::Number(9), None).await.unwrap_err();
    assert_eq!(later.hint.as_deref(), Some("versions 0 to 5 are there"));
}
