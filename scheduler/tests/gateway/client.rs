//! Our own client: DataFusion's DataFrame API over the wire.

use super::{Served, eventually, secret};
use arrow::array::{Int64Array, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use datafusion::dataframe::{DataFrame, DataFrameWriteOptions};
use datafusion::error::DataFusionError;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::functions_window::expr_fn::rank;
use datafusion::prelude::*;
use futures::{StreamExt, TryStreamExt};
use tidemill_client::{Client, Options, ServerError};
use tidemill_scheduler::gateway::Credentials;

async fn connected() -> (Served, Client) {
    let served = Served::start(Credentials::default()).await;
    let client = Client::connect(&served.url, Options::default()).await.unwrap();
    let orders = "CREATE TABLE orders (id BIGINT, region VARCHAR, price DOUBLE) AS VALUES \
                  (1, 'north', 10.0), (2, 'south', 4.0), (3, 'north', 30.0), (4, NULL, 7.0)";
    client.execute(orders).await.unwrap();
    (served, client)
}

async fn lines(frame: DataFrame) -> Vec<String> {
    shown(&frame.collect().await.unwrap())
}

fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches).unwrap().to_string();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(1);
    rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_frames_run_on_the_server() {
    let (_served, client) = connected().await;
    let orders = client.table("orders").await.unwrap();
    let revenue = orders
        .clone()
        .filter(col("price").gt(lit(5)))
        .unwrap()
        .aggregate(vec![col("region")], vec![sum(col("price")).alias("revenue"), count(lit(1)).alias("n")])
        .unwrap()
        .sort(vec![col("revenue").sort(false, false)])
        .unwrap();
    assert_eq!(lines(revenue).await, ["| north | 40.0 | 2 |", "| | 7.0 | 1 |"]);

    let ranked = orders
        .clone()
        .window(vec![
            rank()
                .partition_by(vec![col("region")])
                .order_by(vec![col("price").sort(false, false)])
                .build()
                .unwrap()
                .alias("place"),
        ])
        .unwrap()
        .filter(col("place").eq(lit(1)).and(col("region").is_not_null()))
        .unwrap()
        .select(vec![col("id"), col("place")])
        .unwrap()
        .sort(vec![col("id").sort(true, false)])
        .unwrap();
    assert_eq!(lines(ranked).await, ["| 2 | 1 |", "| 3 | 1 |"]);

    let left = orders.clone().alias("l").unwrap();
    let right = client.table("public.orders").await.unwrap().alias("r").unwrap();
    let pairs = left
        .join(right, JoinType::Inner, &["region"], &["region"], Some(col("l.id").lt(col("r.id"))))
        .unwrap()
        .select(vec![col("l.id"), col("r.price")])
        .unwrap();
    assert_eq!(lines(pairs).await, ["| 1 | 30.0 |"]);
    assert_eq!(orders.clone().count().await.unwrap(), 4);
    assert_eq!(lines(orders.limit(4, Some(1)).unwrap()).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_planned_here_or_sent() {
    let (_served, client) = connected().await;
    let sql = "SELECT id, upper(region) AS r FROM orders WHERE price >= (SELECT avg(price) FROM orders) \
               AND id IN (SELECT id FROM orders WHERE region = 'north')";
    let planned = client.context().sql(sql).await.unwrap();
    assert_eq!(lines(planned.clone()).await, lines(planned.select_columns(&["id", "r"]).unwrap()).await);
    let sent: Vec<RecordBatch> = client.sql(sql).await.unwrap().try_collect().await.unwrap();
    assert_eq!(shown(&sent), ["| 3 | NORTH |"]);
    let joined =
        client.context().sql("SELECT id, count(*) AS n FROM orders JOIN orders AS o USING (id) GROUP BY id");
    assert_eq!(lines(joined.await.unwrap()).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_frame_is_written_into_a_table() {
    let (_served, client) = connected().await;
    client.execute("CREATE TABLE cheap (id BIGINT, price DOUBLE)").await.unwrap();
    let cheap = client.table("orders").await.unwrap().filter(col("price").lt(lit(8))).unwrap();
    let cheap = cheap.select(vec![col("id"), col("price")]).unwrap();
    let written = cheap.write_table("cheap", DataFrameWriteOptions::new()).await.unwrap();
    assert_eq!(shown(&written), ["| 2 |"]);
    client.context().sql("INSERT INTO cheap VALUES (9, 1.5)").await.unwrap().collect().await.unwrap();
    let total =
        client.table("cheap").await.unwrap().aggregate(vec![], vec![sum(col("price")), count(lit(1))]);
    assert_eq!(lines(total.unwrap()).await, ["| 12.5 | 3 |"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_the_servers() {
    let (_served, client) = connected().await;
    let catalog = client.context().catalog("datafusion").unwrap();
    let names = || catalog.schema("public").unwrap().table_names();
    assert_eq!(names(), [""; 0]);
    client.refresh().await.unwrap();
    assert_eq!(names(), ["orders"]);
    assert_eq!(client.table("orders").await.unwrap().schema().field(1).name(), "region");
    let error = client.table("ordres").await.unwrap_err();
    assert!(error.to_string().contains("ordres"), "{error}");
}

fn text(error: DataFusionError) -> String {
    error.strip_backtrace()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_said() {
    let (_served, client) = connected().await;
    let context = client.context();
    let own =
        RecordBatch::try_from_iter([("id", std::sync::Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let local = context.read_batch(own).unwrap();
    let error = text(local.collect().await.unwrap_err());
    assert!(error.contains("is no table of the server; insert its rows into one first"), "{error}");
    let unnested = context.sql("SELECT unnest([1, 2])").await.unwrap();
    let error = text(unnested.collect().await.unwrap_err());
    assert!(error.contains("Substrait cannot carry UNNEST; send it as text by Client::sql"), "{error}");
    let deleted = context.sql("DELETE FROM orders WHERE id = 1").await.unwrap();
    let error = text(deleted.collect().await.unwrap_err());
    assert!(error.contains("of a DataFrame; send it as text"), "{error}");
    let orders = client.table("orders").await.unwrap();
    client.execute("DROP TABLE orders").await.unwrap();
    let error = orders.collect().await.unwrap_err();
    let DataFusionError::External(inner) = &error else { panic!("{error}") };
    let told = inner.downcast_ref::<ServerError>().unwrap();
    assert_eq!(told.status.code(), tonic::Code::NotFound);
    assert!(told.to_string().starts_with("TM-1003: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_stream_and_leaving_early_ends_the_job() {
    let (served, client) = connected().await;
    let endless = "SELECT value FROM generate_series(1, 1000000000000)";
    let mut rows = client.sql(endless).await.unwrap();
    assert!(rows.next().await.unwrap().unwrap().num_rows() > 0);
    assert_eq!(served.frontend.running_jobs(), 1);
    drop(rows);
    eventually(|| served.frontend.running_jobs() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_the_door() {
    let served = Served::start(secret()).await;
    let error = Client::connect(&served.url, Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("TM-1010"), "{error}");
    let login = Some(("ann".to_owned(), "secret".to_owned()));
    let client = Client::connect(&served.url, Options { login, ..Options::default() }).await.unwrap();
    assert_eq!(lines(client.context().sql("SELECT 1 AS one").await.unwrap()).await, ["| 1 |"]);
    let error = Client::connect("grpc+tls://localhost:1", Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("Client::over"), "{error}");
}
