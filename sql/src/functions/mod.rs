//! What is rewritten before planning, so that the planner sees plain SQL: window functions, Spark's `window`, and
//! functions that were written in SQL.

mod macros;
mod spark;
mod versions;
mod windows;

#[cfg(test)]
mod macro_tests;
#[cfg(test)]
mod tests;

pub(crate) use macros::trial;
pub use macros::{Macros, inline};
pub(crate) use versions::rewrite_versions;
pub use windows::{RewriteFor, WindowInfo, WindowKind, rewrite_windows};
