//! How Parquet files are read where a plan runs: from decoded columns that are kept, and with filters applied early.
//!
//! More than half of the time of an analytical query over Parquet goes into decoding it. Files of a lake are never
//! changed, so what was decoded once can be used again; a file is known by its place, size, time and entity tag.
//!
//! ```text
//! DataSourceExec(Parquet) ──prepare──▶ DataSourceExec(LakeSource)
//!                                         │ a row group at a time
//!                     all columns are here ├─▶ Encoded ─▶ EarlyFilters ─▶ the rows that are left, decoded
//!                        it was asked for  ├─▶ decode what is missing, keep it, and go on as above
//!                     more than once before│
//!                                     else └─▶ the Parquet scan as it was ─▶ EarlyFilters of joins
//! ```
//! The filters are those that DataFusion hands to the scan: of the query, and those that a join, a limit or an
//! aggregate fills in while it runs. They are tried on the columns that they need, and given up where they drop
//! too little. Whatever filters rows exactly stands above the scan as before, so an answer never depends on this.
//! The preparing is done by every engine on the node that reads, and never travels.

mod bounds;
mod encoded;
mod filters;
mod grouped;
mod json_array;
mod late;
mod opener;
mod source;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use bounds::widen;
pub(crate) use encoded::owned;
pub(crate) use json_array::reads_arrays;
pub(crate) use source::divides_by_files;
pub use source::{Rows, file_bytes, files_of, prepare};
pub use store::DataCache;
