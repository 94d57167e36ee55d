//! Parquet or CSV files in a folder or a bucket, as a target of loads and pipelines.
//!
//! ```text
//! task ─▶ TaskWriter ─▶ {target}/_tidemill_staging/{job}/{run}/{task}.parquet      invisible to readers
//! commit ─▶ copy to {target}/{job}-{run}-{i}.parquet   for each file, under a name that repeats
//!        ─▶ {target}/_tidemill_commits/{job}/{run}.json, put if absent             the run is committed
//!        ─▶ the staged files are deleted
//! ```
//! Readers that list a folder pass over names that begin with `_`, as Spark, DuckDB's globs of `*.parquet` and
//! DataFusion do.
//!
//! **What is not atomic**: a folder has no log, so the files of a run appear one by one while it is committed,
//! and a reader that lists the folder meanwhile sees some of them. A commit that breaks off leaves them there and
//! is finished by its repetition. Who must not see half a run reads the files named in the markers only, or uses
//! a Delta table. A repeated commit changes nothing, given that it comes with the same files, which the epoch's
//! manifest and a load's journal make sure of.

mod commit;
mod encode;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

pub use sink::{FilesSink, OPTIONS, sink};
