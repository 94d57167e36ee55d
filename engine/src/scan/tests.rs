//! What comes out of the cache is what the files hold.

use super::{DataCache, Rows, prepare};
use crate::{Services, session};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::util::pretty::pretty_format_batches;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use tidemill_core::ConnectorRegistry;
use tidemill_core::config::Config;

const ROWS: i64 = 50_000;
const GROUP_ROWS: usize = 20_000;

/// `id` counts up from `first`, `kind` is one of three or NULL, `mixed` has few values in the first row group only,
/// and `visitor` is one of nine thousand, most of whom come again.
fn write(path: &Path, first: i64) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("kind", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("mixed", DataType::Utf8, false),
        Field::new("visitor", DataType::Utf8, true),
    ]));
    let ids = Int64Array::from_iter_values(first..first + ROWS);
    let kinds: StringArray = (0..ROWS).map(|n| (n % 4 > 0).then(|| format!("kind {}", n % 4))).collect();
    let names: StringArray = (0..ROWS).map(|n| Some(format!("the name of row number {n}"))).collect();
    let mixed = (0..ROWS).map(|n| if n < GROUP_ROWS as i64 { n % 7 } else { n });
    let mixed: StringArray = mixed.map(|n| Some(format!("mixed {n}"))).collect();
    let visitors: StringArray = (0..ROWS).map(|n| visitor(n * 7 % 9001)).collect();
    let columns: [ArrayRef; 5] =
        [Arc::new(ids), Arc::new(kinds), Arc::new(names), Arc::new(mixed), Arc::new(visitors)];
    let batch = RecordBatch::try_new(schema.clone(), columns.to_vec());
    let groups = WriterProperties::builder().set_max_row_group_row_count(Some(GROUP_ROWS)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, Some(groups)).unwrap();
    writer.write(&batch.unwrap()).unwrap();
    writer.close().unwrap();
}

/// Some names fit into a view, and some are NULL.
fn visitor(number: i64) -> Option<String> {
    match number % 3 {
        0 => None,
        1 => Some(format!("v {number}")),
        _ => Some(format!("the visitor of number {number}")),
    }
}

fn by_day() -> ParquetReadOptions<'static> {
    ParquetReadOptions::default().table_partition_cols(vec![("day".to_owned(), DataType::Int32)])
}

struct Table {
    folder: tempfile::TempDir,
    context: SessionContext,
    cache: Arc<DataCache>,
}

impl Table {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for day in ["1", "2"] {
            std::fs::create_dir(folder.path().join(format!("day={day}"))).unwrap();
            write(&folder.path().join(format!("day={day}/part.parquet")), 0);
        }
        let services = Services::new(Config::default(), ConnectorRegistry::default());
        let runtime = session::runtime_env(&services.config).unwrap();
        let context = SessionContext::new_with_state(session::session_state(&services, runtime).build());
        context.register_parquet("t", folder.path().to_str().unwrap(), by_day()).await.unwrap();
        Self { folder, context, cache: services.data.clone().unwrap() }
    }

    /// The answer as DataFusion gives it and as it comes through the cache.
    async fn ask(&self, sql: &str) -> [String; 2] {
        self.ask_for(sql, Rows::Stay).await
    }

    async fn ask_for(&self, sql: &str, rows: Rows) -> [String; 2] {
        let plan = self.context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let cached = prepare(plan.clone(), &self.context.task_ctx(), rows).unwrap();
        let plain = collect(plan, self.context.task_ctx()).await.unwrap();
        let cached = collect(cached, self.context.task_ctx()).await.unwrap();
        [plain, cached].map(|batches| pretty_format_batches(&batches).unwrap().to_string())
    }
}

const QUERIES: &[&str] = &[
    "SELECT day, kind, count(*) AS n, sum(id) AS ids, min(name) AS least FROM t GROUP BY day, kind ORDER BY day, kind",
    "SELECT * FROM t WHERE id BETWEEN 19998 AND 20001 ORDER BY day, id",
    "SELECT id + 1 AS more, day * 10 AS days FROM t WHERE kind IS NULL AND id > 49990 ORDER BY more, days",
    "SELECT count(*) AS n FROM t WHERE kind = 'kind 2' AND day = 2",
    "SELECT a.id, b.kind FROM t a JOIN t b ON a.id = b.id AND a.day = b.day WHERE a.id % 9999 = 0 ORDER BY a.id, b.kind, a.day",
];

#[tokio::test]
async fn answers_are_the_same_cold_warm_and_half_warm() {
    let table = Table::new().await;
    for round in 0..4 {
        for sql in QUERIES {
            let [plain, cached] = table.ask(sql).await;
            assert_eq!(plain, cached, "round {round}: {sql}");
        }
    }
    assert!(table.cache.bytes() > 0, "nothing was kept");
    // Six row groups of 50,000 rows' names do not shrink; ids take two bytes each, kinds one.
    assert!(table.cache.bytes() < 16 << 20, "{} bytes", table.cache.bytes());
}

#[tokio::test]
async fn groups_of_one_text_are_counted_by_codes() {
    let table = Table::new().await;
    let by_codes = [
        "SELECT kind, count(*) AS n, sum(id) AS ids, min(name) AS least FROM t GROUP BY kind ORDER BY kind",
        "SELECT kind, count(DISTINCT name) AS names, max(day) AS day FROM t GROUP BY kind ORDER BY kind",
        "SELECT mixed, count(*) AS n, avg(id) AS id FROM t GROUP BY mixed ORDER BY mixed",
        "SELECT DISTINCT kind FROM t ORDER BY kind",
        "SELECT kind, count(*) AS n FROM t WHERE id % 3 = 1 GROUP BY kind ORDER BY kind",
    ];
    let others = [
        "SELECT kind, count(*) FILTER (WHERE id > 7) AS n FROM t GROUP BY kind ORDER BY kind",
        "SELECT kind, max(kind) AS most FROM t GROUP BY kind ORDER BY kind",
        "SELECT concat(kind, '') AS k, count(*) AS n FROM t GROUP BY concat(kind, '') ORDER BY k",
        "SELECT name, count(*) AS n FROM t GROUP BY name ORDER BY name LIMIT 3",
        "SELECT kind, day, count(*) AS n FROM t GROUP BY kind, day ORDER BY kind, day",
    ];
    for round in 0..4 {
        for sql in by_codes.iter().chain(&others) {
            let [plain, cached] = table.ask(sql).await;
            assert_eq!(plain, cached, "round {round}: {sql}");
        }
    }
    for sql in by_codes.iter().chain(&others) {
        let plan = table.context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let prepared = prepare(plan, &table.context.task_ctx(), Rows::Stay).unwrap();
        let shown = displayable(prepared.as_ref()).indent(false).to_string();
        assert_eq!(shown.contains("by=codes"), by_codes.contains(sql), "{sql}:\n{shown}");
    }
}

#[tokio::test]
async fn distinct_texts_are_counted_by_ids() {
    let table = Table::new().await;
    let by_ids = [
        "SELECT id % 5 AS g, count(DISTINCT visitor) AS n, sum(day) AS days FROM t GROUP BY id % 5 ORDER BY g",
        "SELECT day, id % 7 AS g, count(DISTINCT visitor) AS n FROM t WHERE id > 30000 GROUP BY day, id % 7 ORDER BY day, g",
        "SELECT kind, count(DISTINCT visitor) AS n FROM t WHERE kind > 'kind 1' GROUP BY kind ORDER BY kind",
    ];
    let others = [
        "SELECT id % 5 AS g, count(DISTINCT visitor) AS n FROM t WHERE visitor > 'v 3' GROUP BY id % 5 ORDER BY g",
        "SELECT id % 5 AS g, count(DISTINCT visitor) AS n, min(visitor) AS least FROM t GROUP BY id % 5 ORDER BY g",
        "SELECT id % 5 AS g, count(DISTINCT id) AS n FROM t GROUP BY id % 5 ORDER BY g",
    ];
    for sql in &by_ids[1..] {
        table.ask(sql).await;
    }
    for (round, rows) in
        [Rows::Stay, Rows::Travel, Rows::Stay, Rows::Travel, Rows::Stay].into_iter().enumerate()
    {
        for sql in by_ids.iter().chain(&others) {
            let [plain, cached] = table.ask_for(sql, rows).await;
            assert_eq!(plain, cached, "round {round}: {sql}");
        }
    }
    for sql in by_ids.iter().chain(&others) {
        let plan = table.context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let prepared = prepare(plan, &table.context.task_ctx(), Rows::Stay).unwrap();
        let shown = displayable(prepared.as_ref()).indent(false).to_string();
        assert_eq!(shown.contains("by=ids"), by_ids.contains(sql), "{sql}:\n{shown}");
    }
}

#[tokio::test]
async fn a_file_that_was_written_anew_is_read_anew() {
    let table = Table::new().await;
    let sql = "SELECT min(id + day) AS least FROM t";
    for _ in 0..3 {
        table.ask(sql).await;
    }
    write(&table.folder.path().join("day=1/part.parquet"), 7_000_000);
    let context = table.context;
    let place = table.folder.path().join("day=1");
    context.register_parquet("u", place.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    let plan =
        context.sql("SELECT min(id) AS least FROM u").await.unwrap().create_physical_plan().await.unwrap();
    let cached = prepare(plan, &context.task_ctx(), Rows::Stay).unwrap();
    let answer = collect(cached, context.task_ctx()).await.unwrap();
    assert!(pretty_format_batches(&answer).unwrap().to_string().contains("7000000"));
}

#[tokio::test]
async fn one_look_keeps_nothing() {
    let table = Table::new().await;
    table.ask("SELECT max(id) AS most FROM t WHERE name > 'a'").await;
    assert_eq!(table.cache.bytes(), 0);
}

#[tokio::test]
async fn a_table_may_name_its_columns_in_another_order_than_its_files() {
    let table = Table::new().await;
    let place = table.folder.path().join("day=1");
    let turned = format!(
        "CREATE EXTERNAL TABLE turned (name VARCHAR, kind VARCHAR, id BIGINT) STORED AS PARQUET LOCATION '{}'",
        place.display()
    );
    table.context.sql(&turned).await.unwrap();
    for round in 0..4 {
        let [plain, cached] = table.ask("SELECT count(*) AS n FROM turned WHERE id >= 45000").await;
        assert!(plain.contains("5000"), "{plain}");
        assert_eq!(plain, cached, "round {round}");
    }
}

#[tokio::test]
async fn nan_beside_one_number_is_not_that_number() {
    let table = Table::new().await;
    let file = table.folder.path().join("nan.parquet");
    let rows = "SELECT * FROM (VALUES (1.1, 1), ('NaN'::DOUBLE, 1)) v(x, y)";
    for sql in [
        format!("COPY ({rows}) TO '{}'", file.display()),
        format!("CREATE EXTERNAL TABLE nan STORED AS PARQUET LOCATION '{}'", file.display()),
    ] {
        table.context.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    for round in 0..4 {
        let [_, ours] = table.ask("SELECT count(*) AS n FROM nan WHERE isnan(x) AND y = 1").await;
        assert!(ours.contains("| 1 |"), "round {round}: {ours}");
        let [_, ours] = table.ask("SELECT median(x) AS x FROM nan WHERE isnan(x)").await;
        assert!(ours.contains("NaN"), "round {round}: {ours}");
    }
}
