//! Against a real server: `TIDEMILL_CLICKHOUSE_URL` (with `…_USER` and `…_PASSWORD`). Without it these tests
//! say that they were skipped.

use super::session::Session;
use super::*;
use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use std::collections::BTreeMap;

/// A sink on a table of its own, with a session beside it.
struct Trial {
    _dir: tempfile::TempDir,
    config: Config,
    options: BTreeMap<String, String>,
    table: String,
    session: Session,
}

impl Trial {
    fn start(name: &str) -> Option<Self> {
        let Ok(url) = std::env::var("TIDEMILL_CLICKHOUSE_URL") else {
            eprintln!("SKIPPED {name}: TIDEMILL_CLICKHOUSE_URL is not set");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.lake.root = dir.path().to_str().unwrap().to_owned();
        let mut options =
            BTreeMap::from([("url".to_owned(), url), ("chunk_rows".to_owned(), "4".to_owned())]);
        for (option, variable) in
            [("user", "TIDEMILL_CLICKHOUSE_USER"), ("password", "TIDEMILL_CLICKHOUSE_PASSWORD")]
        {
            if std::env::var(variable).is_ok() {
                options.insert(option.to_owned(), format!("env:{variable}"));
            }
        }
        let table = format!("{name}_{}", uuid::Uuid::new_v4().simple());
        let spec =
            SinkSpec { connector: "clickhouse".to_owned(), target: table.clone(), options: options.clone() };
        let session = Session::new(&Settings::new(&spec).unwrap());
        Some(Self { _dir: dir, config, options, table, session })
    }

    fn sink(&self) -> Arc<dyn Sink> {
        self.sink_with(&[])
    }

    fn sink_with(&self, options: &[(&str, &str)]) -> Arc<dyn Sink> {
        let mut all = self.options.clone();
        all.extend(options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let spec = SinkSpec { connector: "clickhouse".to_owned(), target: self.table.clone(), options: all };
        sink(&spec, &self.config).unwrap()
    }

    async fn number(&self, select: &str) -> u64 {
        let rows: Vec<u64> =
            self.session.rows(&select.replace("{t}", &self.table), |query| query).await.unwrap();
        rows[0]
    }

    async fn execute(&self, statement: &str) {
        self.session.execute(&statement.replace("{t}", &self.table)).await.unwrap();
    }

    async fn end(self) {
        self.execute("DROP TABLE IF EXISTS {t}").await;
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("region", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
    ]))
}

fn rows(values: std::ops::Range<i64>) -> RecordBatch {
    let numbers: Vec<i64> = values.collect();
    let regions: Vec<Option<String>> =
        numbers.iter().map(|n| (n % 3 != 0).then(|| format!("region `{n}'\\"))).collect();
    let times: Vec<i64> = numbers.iter().map(|n| 1_767_225_600_000_000 + n * 1_000_000).collect();
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from(numbers)),
            Arc::new(StringArray::from(regions)),
            Arc::new(TimestampMicrosecondArray::from(times)),
        ],
    )
    .unwrap()
}

async fn stage_rows(sink: &dyn Sink, run: u64, batch: RecordBatch) -> Vec<Written> {
    let scope = WriteScope { job: "trial's".to_owned(), run, task: "0".to_owned() };
    let mut writer = sink.writer(&scope, &batch.schema()).await.unwrap();
    writer.write(batch).await.unwrap();
    writer.close().await.unwrap()
}

#[tokio::test]
async fn a_run_is_loaded_once_however_often_it_is_committed() {
    let Some(trial) = Trial::start("once") else { return };
    let sink = trial.sink();
    sink.prepare(&schema()).await.unwrap();
    sink.prepare(&schema()).await.unwrap();
    assert_eq!(sink.committed("trial's").await.unwrap(), None);
    let written = stage_rows(&*sink, 1, rows(0..10)).await;
    assert_eq!(written.len(), 3);
    assert_eq!(trial.number("SELECT count() FROM {t}").await, 0);

    assert_eq!(sink.commit("trial's", 1, &written).await.unwrap(), Commit::Committed { version: 0 });
    assert_eq!(sink.commit("trial's", 1, &written).await.unwrap(), Commit::AlreadyCommitted);
    let second = stage_rows(&*sink, 2, rows(10..12)).await;
    sink.commit("trial's", 2, &second).await.unwrap();

    assert_eq!(sink.committed("trial's").await.unwrap(), Some(2));
    assert_eq!(sink.count("trial's", 1).await.unwrap(), Some(10));
    assert_eq!(sink.count("trial's", 2).await.unwrap(), Some(2));
    assert_eq!(trial.number("SELECT toUInt64(sum(assumeNotNull(n))) FROM {t}").await, 66);
    assert_eq!(trial.number("SELECT countIf(region IS NULL) FROM {t}").await, 4);
    assert_eq!(trial.number("SELECT countIf(at = '2026-01-01 00:00:05') FROM {t}").await, 1);
    trial.end().await;
}

/// Takes a commit to the point where `chunks` of them are in and the committer dies.
async fn commit_partly(trial: &Trial, sink: &dyn Sink, written: &[Written], chunks: usize) {
    // The marker stays unwritten because a chunk after these cannot be read.
    let mut broken = written.to_vec();
    broken[chunks].descriptor["crc32"] = 0.into();
    let error = sink.commit("trial's", 1, &broken).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt);
    assert_eq!(trial.number("SELECT count() FROM {t}").await, 4 * chunks as u64);
}

#[tokio::test]
async fn a_commit_that_died_between_chunks_goes_on() {
    let Some(trial) = Trial::start("between") else { return };
    let sink = trial.sink();
    sink.prepare(&schema()).await.unwrap();
    let written = stage_rows(&*sink, 1, rows(0..10)).await;
    commit_partly(&trial, &*sink, &written, 2).await;
    assert_eq!(sink.count("trial's", 1).await.unwrap(), Some(8));
    assert_eq!(sink.commit("trial's", 1, &written).await.unwrap(), Commit::Committed { version: 0 });
    assert_eq!(sink.count("trial's", 1).await.unwrap(), Some(10));
    trial.end().await;
}

/// A table of the user's own has no run column: only the tokens keep a repeated chunk out.
#[tokio::test]
async fn tokens_alone_keep_repeated_chunks_out() {
    let Some(trial) = Trial::start("tokens") else { return };
    let sink = trial.sink();
    trial
        .execute(
            "CREATE TABLE {t} (n Int64, region Nullable(String), at DateTime('UTC'), extra Int8 DEFAULT 7) \
             ENGINE = MergeTree ORDER BY n",
        )
        .await;
    let error = sink.prepare(&schema()).await.unwrap_err();
    assert_eq!(error.code, Code::Unsupported);
    let remedy = error.hint.unwrap();
    trial.execute(remedy.strip_prefix("in ClickHouse: ").unwrap()).await;

    sink.prepare(&schema()).await.unwrap();
    let written = stage_rows(&*sink, 1, rows(0..10)).await;
    commit_partly(&trial, &*sink, &written, 2).await;
    sink.commit("trial's", 1, &written).await.unwrap();
    assert_eq!(trial.number("SELECT count() FROM {t}").await, 10);
    assert_eq!(trial.number("SELECT toUInt64(sum(extra)) FROM {t}").await, 70);
    assert_eq!(sink.count("trial's", 1).await.unwrap(), None);
    trial.end().await;
}

#[tokio::test]
async fn a_null_for_a_column_that_takes_none_stops_the_load_before_its_first_row() {
    let Some(trial) = Trial::start("nulls") else { return };
    trial
        .execute(
            "CREATE TABLE {t} (n Int64, region String, at DateTime64(6)) ENGINE = MergeTree ORDER BY n \
             SETTINGS non_replicated_deduplication_window = 100",
        )
        .await;
    let sink = trial.sink();
    sink.prepare(&schema()).await.unwrap();
    let written = stage_rows(&*sink, 1, rows(1..9)).await;
    let error = sink.commit("trial's", 1, &written).await.unwrap_err();
    assert_eq!(error.code, Code::BadData);
    assert!(error.message.contains("`region` is String and takes no NULL"), "{error}");
    assert_eq!(trial.number("SELECT count() FROM {t}").await, 0);
    trial.end().await;
}

#[tokio::test]
async fn a_table_of_another_shape_is_refused_with_all_differences() {
    let Some(trial) = Trial::start("shape") else { return };
    trial
        .execute(
            "CREATE TABLE {t} (n Int32, area String, at DateTime64(6)) ENGINE = MergeTree ORDER BY n \
             SETTINGS non_replicated_deduplication_window = 100",
        )
        .await;
    let error = trial.sink().prepare(&schema()).await.unwrap_err();
    assert_eq!(error.code, Code::TypeMismatch);
    for part in ["`n` is Int32", "`region` is not in the table", "`area` has no default"] {
        assert!(error.message.contains(part), "{error}");
    }
    trial.end().await;
}

#[tokio::test]
async fn wrong_connections_are_told_apart() {
    let Some(trial) = Trial::start("wrong") else { return };
    let code =
        async |options: &[(&str, &str)]| trial.sink_with(options).prepare(&schema()).await.unwrap_err().code;
    assert_eq!(code(&[("password", "wrong")]).await, Code::AccessDenied);
    assert_eq!(code(&[("database", "no_such_database")]).await, Code::NotFound);
    assert_eq!(code(&[("create_table", "false")]).await, Code::NotFound);
    assert_eq!(code(&[("url", "http://127.0.0.1:9"), ("timeout_secs", "1")]).await, Code::Unreachable);
    trial.end().await;
}

/// Wide enough to show that a chunk of the default size stays one block.
#[tokio::test]
async fn a_large_chunk_is_one_block() {
    let Some(trial) = Trial::start("large") else { return };
    let sink = trial.sink_with(&[("chunk_rows", "500000")]);
    sink.prepare(&schema()).await.unwrap();
    let written = stage_rows(&*sink, 1, rows(0..600_000)).await;
    assert_eq!(written.len(), 2);
    trial.execute("SYSTEM STOP MERGES {t}").await;
    sink.commit("trial's", 1, &written).await.unwrap();
    assert_eq!(sink.count("trial's", 1).await.unwrap(), Some(600_000));
    let parts = format!("SELECT count() FROM system.parts WHERE active AND table = '{}'", trial.table);
    assert_eq!(trial.number(&parts).await, 2);
    trial.end().await;
}
