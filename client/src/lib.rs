//! DataFusion's own `DataFrame` API, over tables of a Tidemill server and run by it.
//!
//! What it is not: it reads no files and runs no plan; what is built here is sent as a Substrait plan over Flight
//! SQL, and the answer streams back.
//!
//! ```text
//! context().table("t")    ─▶ RemoteCatalog: columns of `t`, by Flight SQL metadata
//!     .filter(…).collect() ─▶ RemotePlanner ─▶ Substrait ─▶ RemoteExec: GetFlightInfo, DoGet ─▶ batches
//! sql("…")                 ─▶ text, as the server understands it
//! ```
//!
//! ```no_run
//! use datafusion::functions_aggregate::expr_fn::sum;
//! use datafusion::prelude::*;
//! use tidemill_client::{Client, Options};
//!
//! # async fn example() -> datafusion::error::Result<()> {
//! let client = Client::connect("grpc://127.0.0.1:32010", Options::default()).await?;
//! let revenue = client.table("orders").await?
//!     .filter(col("price").gt(lit(10)))?
//!     .aggregate(vec![col("region")], vec![sum(col("price")).alias("revenue")])?;
//! revenue.show().await?;
//! # Ok(())
//! # }
//! ```

mod catalog;
mod client;
mod error;
mod exec;
mod flight;
mod planner;
mod producer;

pub use client::{Client, Options};
pub use error::ServerError;
