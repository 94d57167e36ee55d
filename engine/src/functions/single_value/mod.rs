//! Scalar subqueries as joins that are as strict as a subquery is.
//!
//! A plan that is cut into tasks cannot have a subquery run beside it, so DataFusion makes a join of it
//! (`enable_physical_uncorrelated_scalar_subquery = false`). A join does not mind a second row, which would multiply
//! or drop rows of the answer, and DataFusion makes one only under a projection or a filter. So a rule comes first:
//!
//! ```text
//! Aggregate(sum(x + (SELECT v FROM t)))  ──moved──▶  Aggregate(sum(x + s)) ─ Projection(x, (SELECT v FROM t) AS s)
//! (SELECT v FROM t)                      ──single─▶  (SELECT single_value(v) FROM t)
//! ```
//! `single_value` fails on a second row. What has one row at most as it is written, an aggregate without GROUP BY above
//! all, stays as it is.

mod function;
mod moved;
mod rule;
#[cfg(test)]
mod tests;

pub(crate) use function::single_value;
pub(crate) use rule::SingleValues;
