//! Table functions that are rewritten before planning, so that the planner sees plain SQL.

mod spark;
mod versions;
mod windows;

#[cfg(test)]
mod tests;

pub(crate) use versions::rewrite_versions;
pub use windows::{RewriteFor, WindowInfo, WindowKind, rewrite_windows};
