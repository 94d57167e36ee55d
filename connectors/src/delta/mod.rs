//! Delta Lake tables: the lake's own format, and a sink that is exactly once.
//!
//! ```text
//! read    log ─▶ snapshot ─▶ FileList (sizes, bounds, partitions) ─▶ DeltaProvider::scan ─▶ plain Parquet scan
//!                                                                     └─▶ rows deleted ─▶ SelectRowsExec
//! write   task ─▶ TaskWriter ─▶ Parquet files ─▶ one descriptor a file ─┐
//! changes log ─▶ change files, files added and removed ─▶ the same scans, with kind and version as constants
//! commit  driver ◀──────────────── all descriptors ◀────────────────────┘
//!            └─▶ one log entry: files + txn(job, run), put if absent
//! create  draft ─▶ the same writers ─▶ one log entry: the first, or the next of the table that is replaced
//! change  snapshot ─▶ some files as a table ─▶ rewritten by tasks ─▶ Transaction: removes + adds, if nobody
//!                                                                    committed what contradicts it
//! ```
//! Log entries are written by conditional put, which S3 and the local file system both have; there is no other
//! lock. Stores come from [`tidemill_engine::object_stores`], so the log is read and written with the same
//! clients as the data, and delta-rs' own registries of stores are not used.
//!
//! What a table needs and we cannot do is refused by name, see `features`.

mod alter;
mod changes;
mod columns;
mod comment;
mod commit;
mod conflict;
mod convert;
mod create;
mod deletions;
mod describe;
mod error;
mod features;
mod files;
mod folder;
mod history;
mod lake;
mod log;
mod maintenance;
#[cfg(test)]
mod maintenance_tests;
mod provider;
mod restore;
mod rules;
mod scan;
mod schema;
mod sink;
mod snapshot;
#[cfg(test)]
mod spark_tests;
mod table;
#[cfg(test)]
mod tests;
mod transaction;
mod upkeep;
mod vacuum;
mod vouched;
mod widening;
mod writer;
mod written;

pub use lake::DeltaLake;
pub use sink::{DeltaSink, OPTIONS, sink};
