//! `count(DISTINCT x)` of each group as one aggregation.
//!
//! DataFusion groups by `x` as well and then counts the groups: a million values in each of seven days are seven
//! million groups, exchanged between all tasks. Here a day has one set of its values:
//!
//! ```text
//! Aggregate(GROUP BY g, count(DISTINCT x)) ──GroupedSets (a rule)──▶ Aggregate(GROUP BY g, count_distinct(x))
//! rows ─▶ Sets: a set for each group ─▶ one value of bytes for each group ─▶ Sets: merged ─▶ counts
//! ```
//! Where texts are kept with ids (`scan::grouped`), a set is a bitmap of them (`IdSets`), which becomes texts when it
//! leaves the process or meets a set that has no ids. A set that no other task has values for is never taken apart again. Without GROUP BY there is one set only, and
//! DataFusion's way is the one that shares it between tasks.

mod function;
mod ids;
mod keys;
mod rule;
mod sets;
#[cfg(test)]
mod tests;

pub(crate) use function::count_distinct;
pub(crate) use ids::IdSets;
pub(crate) use rule::GroupedSets;
