//! Quotients and products of exact numbers, by Spark's rule.
//!
//! ```text
//! a / b in SQL ─▶ ExactNumbers (a planner) ─┬─▶ decimal_divide(a, b)     one is a DECIMAL, none a DOUBLE
//! a * b                                     ├─▶ decimal_multiply(a, b)   and DataFusion's scale is too large
//!                                           └─▶ DataFusion's operator    everything else
//! ```
//! Arrow gives a quotient four digits more than the dividend has, and cuts the rest off. Spark gives as many as keep
//! the quotient apart from its neighbours, and rounds. Scales of such quotients add up when they are multiplied,
//! until Arrow has no digits left before the point, hence the products.
//!
//! They are functions, as an operator of DataFusion's cannot have another result; the name of a column is that of
//! the operator.

mod arithmetic;
mod digits;
mod function;
mod planner;
#[cfg(test)]
mod tests;

pub(crate) use function::functions;
pub(crate) use planner::ExactNumbers;
