//! Between clients and engines: sessions, statements, jobs, and the choice of the engine.
//!
//! ```text
//! gateway, shell ─▶ SqlFrontend ─┬─ queries, INSERT, EXPLAIN ─▶ Runner   ─▶ engine
//!                                ├─ DELETE, UPDATE, MERGE …  ─▶ Work     ─▶ engine, LakeSnapshot
//!                                ├─ CREATE, DROP             ─▶ Definer  ─▶ journal, catalog
//!                                └─ pipelines, loads         ─▶ Operator ─▶ Pipelines, Loads
//! ```

mod answers;
pub mod api;
mod change;
mod cost;
mod define;
mod definitions;
mod describe;
mod drive;
mod explain;
mod history;
mod ingest;
mod jobs;
mod limits;
mod load_query;
mod maintain;
mod objects;
mod operate;
pub mod params;
mod query;
mod service;
mod session;
mod start;
pub mod substrait;
mod system;
mod tasks;
mod unfilled;

pub(crate) use answers::new_job;
pub(crate) use define::lake_sink;
pub(crate) use query::{Planned, physical, plan_for};
pub use service::SqlFrontend;
pub use start::{Node, NodeOptions};
