//! `SET name = value`, `SET name TO value`, `RESET name`; `USE schema` sets the schema.

use crate::dialect::Cursor;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::Result;

/// A variable of the session: `engine`, `schema`, or one of DataFusion's `datafusion.…` options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    /// `None` puts the default back.
    pub value: Option<String>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Set> {
    if cursor.take(&["RESET"]) {
        return Ok(Set { name: cursor.dotted()?.join("."), value: None });
    }
    cursor.expect(&["SET"])?;
    let name = cursor.dotted()?.join(".");
    if !cursor.take_token(&Token::Eq) && !cursor.take(&["TO"]) {
        return Err(cursor.expected("`=` or `TO`"));
    }
    let value = cursor.value()?;
    Ok(Set { name, value: Some(value) })
}

pub(super) fn parse_use(cursor: &mut Cursor<'_>) -> Result<Set> {
    cursor.expect(&["USE"])?;
    let _ = cursor.take(&["SCHEMA"]) || cursor.take(&["DATABASE"]);
    Ok(Set { name: "schema".to_owned(), value: Some(cursor.schema_name()?) })
}
