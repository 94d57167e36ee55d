//! `COMMENT ON TABLE t | VIEW v | COLUMN t.c IS 'text' | NULL`.

use crate::TableName;
use crate::dialect::Cursor;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The table or view.
    pub table: TableName,
    /// `None`: the comment is the table's own.
    pub column: Option<String>,
    /// Empty where the comment is taken away.
    pub text: String,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Comment> {
    cursor.expect(&["COMMENT", "ON"])?;
    let (table, column) = match cursor.one_of(&["TABLE", "VIEW", "COLUMN"])? {
        "COLUMN" => {
            let mut parts = cursor.dotted()?;
            let column = parts.pop().filter(|_| !parts.is_empty()).ok_or_else(|| {
                Error::new(Code::InvalidStatement, "a column's comment needs its table")
                    .hint("COMMENT ON COLUMN table.column IS 'text'")
            })?;
            (TableName::from_parts(&parts, default_schema)?, Some(column))
        }
        _ => (cursor.table_name(default_schema)?, None),
    };
    cursor.expect(&["IS"])?;
    let text = if cursor.take(&["NULL"]) { String::new() } else { cursor.string()? };
    Ok(Comment { table, column, text })
}
