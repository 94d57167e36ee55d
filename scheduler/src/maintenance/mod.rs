//! Care of tables: rows laid out anew without being changed, and what is done for a table without being asked.

mod bins;
mod cluster;
mod compact;
mod due;
mod report;
mod rewrite;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod upkeep;

pub(crate) use cluster::Cluster;
pub(crate) use compact::Compact;
pub(crate) use report::Report;
pub(crate) use rewrite::{Optimizer, TargetSize};
pub(crate) use upkeep::Upkeep;
