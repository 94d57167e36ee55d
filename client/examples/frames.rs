//! `cargo run -p tidemill-client --example frames -- grpc://127.0.0.1:32010`

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::prelude::*;
use tidemill_client::{Client, Options};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "grpc://127.0.0.1:32010".to_owned());
    let client = Client::connect(&url, Options::default()).await?;
    client.execute("CREATE TABLE IF NOT EXISTS example_orders (region VARCHAR, price DOUBLE)").await?;
    client
        .execute("CREATE TABLE IF NOT EXISTS example_revenue (region VARCHAR, revenue DOUBLE, orders BIGINT)")
        .await?;
    client
        .execute("INSERT INTO example_orders VALUES ('north', 12.5), ('south', 4.0), ('north', 30.0)")
        .await?;

    let revenue = client.table("example_orders").await?.filter(col("price").gt(lit(5)))?.aggregate(
        vec![col("region")],
        vec![sum(col("price")).alias("revenue"), count(lit(1)).alias("orders")],
    )?;
    revenue.clone().show().await?;
    revenue.write_table("example_revenue", DataFrameWriteOptions::new()).await?;
    client.table("example_revenue").await?.show().await
}
