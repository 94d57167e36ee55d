//! Decoded columns of Parquet files, kept in memory in a compact form.
//!
//! More than half of the time of an analytical query over Parquet goes into decoding it. Files of a lake are never
//! changed, so what was decoded once can be used again; a file is known by its place, size, time and entity tag.
//!
//! ```text
//! DataSourceExec(Parquet) ──wrap──▶ DataSourceExec(CachedSource)
//!                                        │ a row group at a time
//!                    all columns are here ├─▶ Encoded ─▶ batches
//!                       it was asked for  ├─▶ decode what is missing ─▶ Encoded, kept ─▶ batches
//!                    more than once before│
//!                                    else └─▶ the Parquet scan as it was
//! ```
//! The wrapping is done where a plan runs and never travels. Which row is read does not depend on it: row groups
//! are pruned by the same statistics, and whatever filters rows stands above the scan as before.

mod encoded;
mod opener;
mod source;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use source::wrap;
pub use store::DataCache;
