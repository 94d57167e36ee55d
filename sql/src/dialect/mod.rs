//! From text to tokens to the pieces that statements are made of.
//!
//! ```text
//! script ──split──▶ text ──Cursor──▶ crate::statement::parse ──▶ Statement
//!                            ├─ words, names, options: here
//!                            └─ queries, expressions, types: sqlparser, as DataFusion re-exports it
//! ```
//! Our own statements are read token by token on sqlparser's `Parser`, in the manner of DataFusion's
//! `DFParser`, so that quoting, comments and placeholders mean the same everywhere.

mod cursor;
mod interval;
mod options;
mod split;
mod syntax;
mod type_names;
mod types;
mod versions;

pub(crate) use cursor::Cursor;
pub(crate) use interval::interval_ms;
pub(crate) use options::{OptionReader, duration_ms};
pub use split::split;
pub use type_names::sql_type;
pub use types::TidemillTypes;
pub(crate) use types::{column_schema, normalize};
pub(crate) use versions::{TIMESTAMP_AS_OF, VERSION_AS_OF};

pub use crate::name::quote;
use datafusion::sql::sqlparser::ast::{Expr, Query};
use tidemill_core::Result;

/// Parses a stored query text again.
pub fn parse_query(text: &str) -> Result<Box<Query>> {
    let mut cursor = Cursor::new(text)?;
    let query = cursor.query()?;
    cursor.end()?;
    Ok(query)
}

/// Parses a stored expression text again.
pub fn parse_expr(text: &str) -> Result<Expr> {
    let mut cursor = Cursor::new(text)?;
    let expr = cursor.expr()?;
    cursor.end()?;
    Ok(expr)
}
