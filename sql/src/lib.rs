//! Text to plan: the dialect, one file a statement, the catalog, the functions, the streaming planner.
//!
//! What it is not: it knows no network, no engine's scheduler and no connector; a connector's options are
//! carried as text and read by the connector.
//!
//! ```text
//! text ─▶ split ─▶ parse ─▶ Statement ─┬─▶ definitions (SourceDef, PipelineDef, …) ─▶ journal ─▶ Catalog
//!                                      └─▶ queries ─▶ inline ─▶ rewrite_windows ─▶ plan_query ─▶ LogicalPlan
//! ```
//!
//! ```
//! use tidemill_sql::{DEFAULT_SCHEMA, Statement, parse};
//!
//! let statement = parse("DROP PIPELINE IF EXISTS revenue", DEFAULT_SCHEMA)?;
//! assert!(matches!(statement, Statement::Drop(drop) if drop.if_exists));
//! # Ok::<(), tidemill_core::Error>(())
//! ```

pub mod catalog;
pub mod changes;
pub mod dialect;
pub mod functions;
mod name;
mod plan;
pub mod statement;
pub mod streaming;

pub use catalog::{Catalog, Change, SystemTables};
pub use dialect::{TidemillTypes, split};
pub use functions::{Macros, RewriteFor, WindowInfo, WindowKind, rewrite_windows};
pub use name::{CATALOG, DEFAULT_SCHEMA, SYSTEM_SCHEMA, TableName};
pub use plan::plan_query;
pub use statement::{Statement, parse};
