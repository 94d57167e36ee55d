//! What is rewritten before planning, so that the planner sees plain SQL: window functions, Spark's `window` and
//! everyday functions, and functions that were written in SQL.

mod everyday;
mod macros;
mod patterns;
mod spark;
mod versions;
mod windows;

#[cfg(test)]
mod macro_tests;
#[cfg(test)]
mod tests;

pub use everyday::everyday;
pub(crate) use everyday::rewrite_everyday;
pub(crate) use macros::trial;
pub use macros::{Macros, inline};
pub(crate) use versions::rewrite_versions;
pub use windows::{RewriteFor, WindowInfo, WindowKind, rewrite_windows};
