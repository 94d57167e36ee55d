//! A table from end to end: written by several committers, read by the engine and by delta-rs.

mod changes;
mod create;

use super::sink::DeltaSink;
use super::table::Table;
use super::{DeltaLake, sink};
use arrow::array::{
    ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemill_core::config::Config;
use tidemill_core::{Code, Commit, Sink, SinkSpec, WriteScope, Written};
use tidemill_engine::object_stores::{LazyObjectStores, object_store_for};
use tidemill_engine::{LakeFormat, TableOptions};
use url::Url;

pub(super) fn spec(url: &Url, options: &[(&str, &str)]) -> SinkSpec {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    SinkSpec { connector: "delta".to_owned(), target: url.to_string(), options }
}

/// A sink with a table handle of its own, as another process has it.
pub(super) fn fresh(url: &Url) -> Arc<dyn Sink> {
    let store = object_store_for(url, &Config::default()).unwrap();
    over(store, url)
}

fn over(store: Arc<dyn ObjectStore>, url: &Url) -> Arc<dyn Sink> {
    let table = Arc::new(Table::over(store, url).unwrap());
    Arc::new(DeltaSink::new(&spec(url, &[]), table).unwrap())
}

pub(super) fn folder(dir: &tempfile::TempDir) -> Url {
    Url::from_file_path(dir.path().join("table")).unwrap()
}

pub(super) fn batch(ids: impl Iterator<Item = i64>, day: i32) -> RecordBatch {
    let ids: Vec<i64> = ids.collect();
    let names = ids.iter().map(|id| format!("a name that does not fit into a view {id}"));
    let times = ids.iter().map(|id| id * 1_000_000_000);
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(ids.clone())) as ArrayRef),
        ("day", Arc::new(Date32Array::from(vec![day; ids.len()])) as ArrayRef),
        ("name", Arc::new(StringViewArray::from_iter_values(names)) as ArrayRef),
        ("ts", Arc::new(TimestampNanosecondArray::from_iter_values(times)) as ArrayRef),
    ])
    .unwrap()
}

pub(super) async fn write(sink: &Arc<dyn Sink>, job: &str, run: u64, rows: RecordBatch) -> Vec<Written> {
    let scope = WriteScope { job: job.to_owned(), run, task: "t".to_owned() };
    let mut writer = sink.writer(&scope, &rows.schema()).await.unwrap();
    writer.write(rows).await.unwrap();
    writer.close().await.unwrap()
}

async fn session(url: &Url) -> SessionContext {
    let provider = DeltaLake::new(Config::default()).open(url).await.unwrap();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    context.register_table("t", provider).unwrap();
    context
}

async fn query(url: &Url, sql: &str) -> String {
    let batches = session(url).await.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

pub(super) async fn number(url: &Url, sql: &str) -> i64 {
    let batches = session(url).await.sql(sql).await.unwrap().collect().await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn plan(url: &Url, sql: &str) -> String {
    let plan = session(url).await.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(true).to_string()
}

/// What delta-rs itself finds in the table.
pub(super) async fn rows_by_delta_rs(url: &Url) -> (u64, u64) {
    let table = deltalake_core::open_table(url.clone()).await.unwrap();
    let adds = table.snapshot().unwrap().snapshot().add_actions_table(true).unwrap();
    let rows =
        adds.column_by_name("num_records").unwrap().as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
    (u64::try_from(rows).unwrap(), table.version().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_made_once_however_often_it_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let writer = sink(&spec(&url, &[]), &Config::default()).unwrap();
    let rows = batch(0..10, 1);
    assert_eq!(writer.committed("p").await.unwrap(), None);
    writer.prepare(&rows.schema()).await.unwrap();
    writer.prepare(&rows.schema()).await.unwrap();
    let written = write(&writer, "p", 1, rows).await;
    assert_eq!(written.iter().map(|written| written.rows).sum::<u64>(), 10);
    assert_eq!(writer.committed("p").await.unwrap(), None);

    assert_eq!(writer.commit("p", 1, &written).await.unwrap(), Commit::Committed { version: 1 });
    assert_eq!(writer.commit("p", 1, &written).await.unwrap(), Commit::AlreadyCommitted);
    let other = fresh(&url);
    assert_eq!(other.commit("p", 1, &written).await.unwrap(), Commit::AlreadyCommitted);
    assert_eq!(other.committed("p").await.unwrap(), Some(1));
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 10);

    // A run without rows is committed too, or recovery would take it for lost.
    assert_eq!(other.commit("p", 2, &[]).await.unwrap(), Commit::Committed { version: 2 });
    assert_eq!(writer.committed("p").await.unwrap(), Some(2));
    // A zombie with an older run.
    assert_eq!(writer.commit("p", 1, &written).await.unwrap(), Commit::AlreadyCommitted);
    assert_eq!(rows_by_delta_rs(&url).await, (10, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_committers_with_stale_handles_lose_nothing_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sinks = [fresh(&url), fresh(&url), fresh(&url)];
    sinks[0].prepare(&batch(0..1, 1).schema()).await.unwrap();
    // All have seen version 0, and all three try to commit the same runs of `shared` besides their own.
    let mut racers = Vec::new();
    let mut shared = Vec::new();
    for run in 1..=5 {
        shared.push(write(&sinks[0], "shared", run, batch(0..3, 1)).await);
    }
    let shared = Arc::new(shared);
    for (index, sink) in sinks.into_iter().enumerate() {
        let shared = shared.clone();
        racers.push(tokio::spawn(async move {
            let mut ours = 0;
            for run in 1..=5_u64 {
                let own = format!("own-{index}");
                let written = write(&sink, &own, run, batch(0..2, 1)).await;
                assert!(matches!(sink.commit(&own, run, &written).await.unwrap(), Commit::Committed { .. }));
                let commit =
                    sink.commit("shared", run, &shared[usize::try_from(run).unwrap() - 1]).await.unwrap();
                ours += u64::from(matches!(commit, Commit::Committed { .. }));
            }
            ours
        }));
    }
    let mut committed = 0;
    for racer in racers {
        committed += racer.await.unwrap();
    }
    assert_eq!(committed, 5, "each run of `shared` once");
    assert_eq!(rows_by_delta_rs(&url).await, (3 * 5 * 2 + 5 * 3, 15 + 5));
}

/// A store whose conditional puts land and then report an error, every second time.
#[derive(Debug)]
struct LandsAndFails {
    inner: Arc<dyn ObjectStore>,
    puts: AtomicUsize,
    failed: AtomicUsize,
}

impl std::fmt::Display for LandsAndFails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LandsAndFails")
    }
}

#[async_trait]
impl ObjectStore for LandsAndFails {
    async fn put_opts(
        &self,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let done = self.inner.put_opts(to, payload, options).await?;
        if to.as_ref().contains("_delta_log") && self.puts.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return Err(object_store::Error::Generic { store: "test", source: "timed out".into() });
        }
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(from, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_lands_and_reports_an_error_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let inner = object_store_for(&url, &Config::default()).unwrap();
    let store = Arc::new(LandsAndFails { inner, puts: AtomicUsize::new(0), failed: AtomicUsize::new(0) });
    let sink = over(store.clone(), &url);
    sink.prepare(&batch(0..1, 1).schema()).await.unwrap();
    for run in 1..=8 {
        let written = write(&sink, "p", run, batch(0..5, 1)).await;
        sink.commit("p", run, &written).await.unwrap();
        assert_eq!(sink.committed("p").await.unwrap(), Some(run));
    }
    assert_eq!(store.failed.load(Ordering::SeqCst), 4);
    assert_eq!(rows_by_delta_rs(&url).await, (40, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_commits_with_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = fresh(&url);
    sink.prepare(&batch(0..1, 1).schema()).await.unwrap();
    for run in 1..=100_u64 {
        let written = write(&sink, "p", run, batch(0..3, 1)).await;
        assert_eq!(sink.commit("p", run, &written).await.unwrap(), Commit::Committed { version: run });
    }
    let checkpoint = dir.path().join("table/_delta_log/00000000000000000100.checkpoint.parquet");
    // The checkpoint is written in the background.
    for _ in 0..600 {
        if checkpoint.exists() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(checkpoint.exists());
    assert_eq!(fresh(&url).committed("p").await.unwrap(), Some(100));
    assert_eq!(rows_by_delta_rs(&url).await, (300, 100));
    assert_eq!(number(&url, "SELECT sum(id) FROM t").await, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_table_reads_back_and_prunes() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = sink(&spec(&url, &[("partition_by", "day")]), &Config::default()).unwrap();
    sink.prepare(&batch(0..1, 1).schema()).await.unwrap();
    let mut written = write(&sink, "p", 1, batch(0..100, 19_000)).await;
    written.extend(write(&sink, "p", 1, batch(100..200, 19_001)).await);
    sink.commit("p", 1, &written).await.unwrap();
    let mut nobody = batch(200..210, 0);
    let columns: Vec<ArrayRef> = nobody
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| match index {
            1 => Arc::new(Date32Array::from(vec![None::<i32>; 10])) as ArrayRef,
            _ => column.clone(),
        })
        .collect();
    let nullable: Vec<Field> =
        nobody.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    nobody = RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns).unwrap();
    let written = write(&sink, "p", 2, nobody).await;
    sink.commit("p", 2, &written).await.unwrap();

    let provider = DeltaLake::new(Config::default()).open(&url).await.unwrap();
    let names: Vec<String> = provider.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "day", "name", "ts"], "the table's own order");
    assert_eq!(provider.schema().field(2).data_type(), &DataType::Utf8View);
    assert_eq!(
        provider.schema().field(3).data_type(),
        &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    );

    let sql = "SELECT day, count(*) AS n, min(id) AS lo, max(id) AS hi, min(name) AS name, max(ts) AS ts FROM t \
               GROUP BY day ORDER BY day NULLS LAST";
    let expected = "\
+------------+-----+-----+-----+-------------------------------------------+----------------------+
| day        | n   | lo  | hi  | name                                      | ts                   |
+------------+-----+-----+-----+-------------------------------------------+----------------------+
| 2022-01-08 | 100 | 0   | 99  | a name that does not fit into a view 0    | 1970-01-01T00:01:39Z |
| 2022-01-09 | 100 | 100 | 199 | a name that does not fit into a view 100  | 1970-01-01T00:03:19Z |
|            | 10  | 200 | 209 | a name that does not fit into a view 200  | 1970-01-01T00:03:29Z |
+------------+-----+-----+-----+-------------------------------------------+----------------------+";
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('-', "");
    assert_eq!(squeeze(&query(&url, sql).await), squeeze(expected));

    // By partition: exactly, so that no filter is left and counts come from the log.
    let by_day = plan(&url, "SELECT id FROM t WHERE day = DATE '2022-01-09'").await;
    assert!(by_day.contains("day=2022-01-09") && !by_day.contains("day=2022-01-08"), "{by_day}");
    assert!(!by_day.contains("FilterExec"), "{by_day}");
    let counted = plan(&url, "SELECT count(*) FROM t WHERE day = DATE '2022-01-09'").await;
    assert!(!counted.contains("DataSourceExec"), "{counted}");
    assert_eq!(number(&url, "SELECT count(*) FROM t WHERE day IS NULL").await, 10);
    assert_eq!(number(&url, "SELECT count(*) FROM t WHERE day IS NOT NULL").await, 200);
    // By bounds: two of three files cannot hold it.
    let by_id = plan(&url, "SELECT name FROM t WHERE id = 150").await;
    assert!(by_id.contains("day=2022-01-09") && !by_id.contains("day=2022-01-08"), "{by_id}");
    assert_eq!(number(&url, "SELECT count(*) FROM t WHERE id = 150").await, 1);
    let by_time = plan(&url, "SELECT id FROM t WHERE ts > TIMESTAMP '1970-01-01T00:03:25Z'").await;
    assert!(
        by_time.contains("__HIVE_DEFAULT_PARTITION__") && !by_time.contains("day=2022-01-09"),
        "{by_time}"
    );
    let either = "SELECT count(*) FROM t WHERE id = 5 OR day = DATE '2022-01-09'";
    assert_eq!(number(&url, either).await, 101);
    assert_eq!(number(&url, "SELECT count(*) FROM t WHERE id > 1000").await, 0);
    assert_eq!(rows_by_delta_rs(&url).await, (210, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_partitions_with_difficult_values() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = sink(&spec(&url, &[("partition_by", "k")]), &Config::default()).unwrap();
    let keys = ["a/b", "c d", "100%", "ä=ö", "x:y"];
    let rows = RecordBatch::try_from_iter([
        ("k", Arc::new(StringViewArray::from(keys.to_vec())) as ArrayRef),
        ("v", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5])) as ArrayRef),
    ])
    .unwrap();
    sink.prepare(&rows.schema()).await.unwrap();
    let written = write(&sink, "p", 1, rows).await;
    assert_eq!(written.len(), 5);
    sink.commit("p", 1, &written).await.unwrap();
    for (key, value) in keys.iter().zip(1..) {
        assert_eq!(number(&url, &format!("SELECT v FROM t WHERE k = '{key}'")).await, value, "{key}");
    }
    assert_eq!(number(&url, "SELECT sum(v) FROM t").await, 15);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_is_a_plain_parquet_scan_with_exact_row_counts() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = sink(&spec(&url, &[]), &Config::default()).unwrap();
    sink.prepare(&batch(0..1, 1).schema()).await.unwrap();
    let mut written = Vec::new();
    for task in 0..4 {
        written.extend(write(&sink, "p", 1, batch(task * 10..task * 10 + 10, 1)).await);
    }
    sink.commit("p", 1, &written).await.unwrap();
    let context = session(&url).await;
    let scan = context.sql("SELECT name, id FROM t WHERE id >= 15").await.unwrap();
    let plan = scan.create_physical_plan().await.unwrap();
    let text = displayable(plan.as_ref()).indent(true).to_string();
    assert!(text.contains("DataSourceExec") && text.contains("file_type=parquet"), "{text}");
    assert!(text.contains("2 groups"), "{text}");
    assert!(text.contains("predicate=id"), "{text}");
    let provider = DeltaLake::new(Config::default()).open(&url).await.unwrap();
    let statistics = provider.statistics().unwrap();
    assert_eq!(statistics.num_rows.get_value(), Some(&40));
    assert_eq!(statistics.num_rows.is_exact(), Some(true));
    // As exact as plain Parquet: answered from the log.
    let text = self::plan(&url, "SELECT count(*), max(id) FROM t").await;
    assert!(!text.contains("DataSourceExec"), "{text}");
    // What the optimiser may not take for exact is read.
    let text = self::plan(&url, "SELECT max(name) FROM t").await;
    assert!(text.contains("DataSourceExec"), "{text}");
    assert_eq!(number(&url, "SELECT count(*) FROM (SELECT id FROM t LIMIT 12)").await, 12);
    // The same snapshot is not built twice.
    let again = DeltaLake::new(Config::default()).open(&url).await.unwrap();
    assert!(Arc::ptr_eq(&provider, &again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_says_what_is_wrong_and_creates_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let lake = DeltaLake::new(Config::default());
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8View, true),
    ]));
    let options = |by: &[&str], properties: &[(&str, &str)]| TableOptions {
        partition_by: by.iter().map(|name| (*name).to_owned()).collect(),
        comment: Some("a table".to_owned()),
        properties: properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..TableOptions::default()
    };
    assert_eq!(lake.open(&url).await.unwrap_err().code, Code::NotFound);
    assert!(!lake.exists(&url).await.unwrap());
    let error = lake.create(&url, schema.clone(), &options(&["nam"], &[])).await.unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `name`?"));
    let mapped = options(&[], &[("delta.columnMapping.mode", "name")]);
    assert_eq!(lake.create(&url, schema.clone(), &mapped).await.unwrap_err().code, Code::Unsupported);
    let good = options(&["name"], &[("delta.appendOnly", "true"), ("owner", "me")]);
    lake.create(&url, schema.clone(), &good).await.unwrap();
    assert!(lake.exists(&url).await.unwrap());
    assert_eq!(lake.create(&url, schema.clone(), &good).await.unwrap_err().code, Code::AlreadyExists);
    assert_eq!(number(&url, "SELECT count(*) FROM t").await, 0);

    let sink = sink(&spec(&url, &[]), &Config::default()).unwrap();
    let wrong = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, true)]));
    assert_eq!(sink.prepare(&wrong).await.unwrap_err().code, Code::TypeMismatch);
    let null = RecordBatch::try_from_iter_with_nullable([(
        "id",
        Arc::new(Int64Array::from(vec![None])) as ArrayRef,
        true,
    )])
    .unwrap();
    let scope = WriteScope { job: "j".to_owned(), run: 1, task: "t".to_owned() };
    let mut writer = sink.writer(&scope, &null.schema()).await.unwrap();
    let error = writer.write(null).await.unwrap_err();
    assert_eq!(error.code, Code::BadData, "{error}");
    writer.abort().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_replaced_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = fresh(&url);
    sink.prepare(&batch(0..1, 1).schema()).await.unwrap();
    let written = write(&sink, "p", 1, batch(0..5, 1)).await;
    std::fs::remove_dir_all(dir.path().join("table")).unwrap();
    let lake = DeltaLake::new(Config::default());
    let other = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    lake.create(&url, other.clone(), &TableOptions::default()).await.unwrap();
    assert_eq!(sink.commit("p", 1, &written).await.unwrap_err().code, Code::NotFound);
    assert_eq!(lake.open(&url).await.unwrap().schema().field(0).name(), "x");
    // A writer that is opened now sees the new table.
    let scope = WriteScope { job: "p".to_owned(), run: 2, task: "t".to_owned() };
    assert_eq!(
        sink.writer(&scope, &batch(0..1, 1).schema()).await.err().map(|e| e.code),
        Some(Code::UnknownColumn)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_write_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let sink = sink(&spec(&url, &[("target_file_size_bytes", "1000")]), &Config::default()).unwrap();
    let rows = batch(0..20_000, 1);
    sink.prepare(&rows.schema()).await.unwrap();
    let scope = WriteScope { job: "p".to_owned(), run: 1, task: "t".to_owned() };
    let mut writer = sink.writer(&scope, &rows.schema()).await.unwrap();
    writer.write(rows.clone()).await.unwrap();
    writer.abort().await;
    let left = || {
        let entries = std::fs::read_dir(dir.path().join("table")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_file()).count()
    };
    assert_eq!(left(), 0);
    // The same rows in several files: the target size is kept to.
    let written = write(&sink, "p", 1, rows).await;
    assert!(written.len() > 1);
    assert_eq!(left(), written.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_table_demands_and_we_lack_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let url = folder(&dir);
    let log = dir.path().join("table/_delta_log");
    std::fs::create_dir_all(&log).unwrap();
    let create = |protocol: &str, configuration: &str, field: &str| {
        let schema = format!(
            r#"{{"type":"struct","fields":[{{"name":"x","type":"long","nullable":true,"metadata":{field}}}]}}"#
        );
        let schema = serde_json::to_string(&schema).unwrap();
        let entry = format!(
            "{{\"protocol\":{protocol}}}\n{{\"metaData\":{{\"id\":\"a\",\"format\":{{\"provider\":\"parquet\",\"options\":{{}}}},\
             \"schemaString\":{schema},\"partitionColumns\":[],\"configuration\":{configuration},\"createdTime\":1}}}}\n"
        );
        std::fs::write(log.join("00000000000000000000.json"), entry).unwrap();
    };
    let lake = DeltaLake::new(Config::default());
    let write = || async {
        fresh(&url).prepare(&Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]))).await
    };

    create(r#"{"minReaderVersion":1,"minWriterVersion":3}"#, r#"{"delta.constraints.c":"odd(x)"}"#, "{}");
    lake.open(&url).await.unwrap();
    let error = write().await.unwrap_err();
    assert!(error.code == Code::Unsupported && error.message.contains("odd(x)"), "{error}");

    create(r#"{"minReaderVersion":1,"minWriterVersion":6}"#, "{}", r#"{"delta.identity.start":1}"#);
    let error = write().await.unwrap_err();
    assert!(error.code == Code::Unsupported && error.message.contains("identity"), "{error}");

    create(
        r#"{"minReaderVersion":1,"minWriterVersion":7,"writerFeatures":["rowTracking","domainMetadata"]}"#,
        "{}",
        "{}",
    );
    let error = write().await.unwrap_err();
    assert!(error.code == Code::Unsupported && error.message.contains("rowTracking"), "{error}");

    let mapped = r#"{"delta.columnMapping.id":1,"delta.columnMapping.physicalName":"c1"}"#;
    create(
        r#"{"minReaderVersion":2,"minWriterVersion":5}"#,
        r#"{"delta.columnMapping.mode":"name"}"#,
        mapped,
    );
    lake.open(&url).await.unwrap();
    let error = write().await.unwrap_err();
    assert!(error.code == Code::Unsupported && error.message.contains("column mapping"), "{error}");
}

/// The same on S3, where a service is at hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_s3_committers_race_by_conditional_put() {
    let Ok(endpoint) = std::env::var("TIDEMILL_S3_ENDPOINT") else {
        eprintln!("skipped: TIDEMILL_S3_ENDPOINT is not set");
        return;
    };
    let bucket = std::env::var("TIDEMILL_S3_BUCKET").unwrap_or_else(|_| "lake".to_owned());
    let mut config = Config::default();
    config.store.endpoint = Some(endpoint);
    config.store.allow_http = true;
    config.store.region = Some("us-east-1".to_owned());
    let url = Url::parse(&format!("s3://{bucket}/test-{}/table", uuid::Uuid::new_v4())).unwrap();
    let sinks: Vec<Arc<dyn Sink>> =
        (0..3).map(|_| over(object_store_for(&url, &config).unwrap(), &url)).collect();
    sinks[0].prepare(&batch(0..1, 1).schema()).await.unwrap();
    let mut racers = Vec::new();
    for (index, sink) in sinks.into_iter().enumerate() {
        racers.push(tokio::spawn(async move {
            for run in 1..=6 {
                let job = format!("job-{index}");
                let written = write(&sink, &job, run, batch(0..4, 1)).await;
                assert!(matches!(sink.commit(&job, run, &written).await.unwrap(), Commit::Committed { .. }));
                assert_eq!(sink.commit(&job, run, &written).await.unwrap(), Commit::AlreadyCommitted);
            }
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let runtime = datafusion::execution::runtime_env::RuntimeEnvBuilder::new()
        .with_object_store_registry(Arc::new(LazyObjectStores::new(config.clone())))
        .build_arc()
        .unwrap();
    let context = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    context.register_table("t", DeltaLake::new(config).open(&url).await.unwrap()).unwrap();
    let batches = context.sql("SELECT sum(id) FROM t").await.unwrap().collect().await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 3 * 6 * 6);
}
