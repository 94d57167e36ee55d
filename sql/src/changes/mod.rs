//! Changes of rows as queries: which files are touched, and what they become.
//!
//! ```text
//! DELETE, UPDATE, MERGE ─┬─ touched: SELECT file number, count(*) … ─▶ the files to rewrite
//!                        └─ rewritten: SELECT all columns, what happens to the row ─▶ WriteExec
//! ```
//! Both read the target under the name [`Target::SQL`], which [`with_target`] makes known to a session: the rows
//! of one snapshot, or of some of its files, with the number of each row's file as one more column. What happens
//! to a row is the column [`ROW_ACTION`], one of [`action`]; the writer counts them and writes what stays.

mod condition;
mod merge;
mod rows;
mod target;
#[cfg(test)]
mod tests;

pub use merge::{MergeQueries, added_columns};
pub use rows::{deleted, replaced, touched, updated};
pub use target::{Target, TargetColumn, is_target, with_rows, with_target};

/// Name of the column with the number of the file that a row is from.
pub const FILE_NUMBER: &str = "__file_number";

/// Name of the column that says what happens to a row.
pub const ROW_ACTION: &str = "__row_action";

/// What happens to a row. Rows of negative ones are not written.
pub mod action {
    pub const COPY: i8 = 0;
    pub const UPDATE: i8 = 1;
    pub const INSERT: i8 = 2;
    pub const DELETE: i8 = -1;
    /// Nothing was there and nothing comes.
    pub const NOTHING: i8 = -2;
    /// A new row that it must not be.
    pub const REFUSED: i8 = -3;
}
