//! What names mean: DataFusion's catalog over the definitions that the journal keeps.
//!
//! ```text
//! journal ──Change──▶ Catalog ─┬─ schema `public`, …  ─┬─ tables: newest Delta snapshot, or files as they are
//!                              │                       ├─ views: planned when they are used
//!                              │                       └─ anything else that is a Delta table under the root
//!                              ├─ schema `tidemill`    ─── system tables, asked for when they are scanned
//!                              └─ `information_schema` ─── DataFusion's own, over all of these
//! ```
//! `t@v3` is version 3 of `t`, and `t@changes(…)` what changed in it: `functions` writes `VERSION AS OF` so.
//! A session's handle may have temporary views as well, which hide tables of the same name in its schema.
//! A table is opened anew for each planning, so a query sees the newest commit and keeps it to its end.

mod definitions;
mod files;
mod information;
mod pinned;
mod provider;
mod schema;
mod system;
mod versions;
mod views;

#[cfg(test)]
mod tests;

pub use definitions::Change;
pub use pinned::pinned;
pub use provider::Catalog;
pub use system::SystemTables;
pub(crate) use versions::Past;
