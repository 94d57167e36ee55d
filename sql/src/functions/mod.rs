//! Table functions that are rewritten before planning, so that the planner sees plain SQL.

mod spark;
mod windows;

#[cfg(test)]
mod tests;

pub use windows::{RewriteFor, WindowInfo, WindowKind, rewrite_windows};
