//! `DESCRIBE [EXTENDED] [TABLE] t`: columns with types and comments.

use crate::TableName;
use crate::dialect::Cursor;
use tidemill_core::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Describe {
    pub table: TableName,
    /// Also what the table is, and where.
    pub extended: bool,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Describe> {
    cursor.one_of(&["DESCRIBE", "DESC"])?;
    cursor.take(&["TABLE"]);
    let extended = cursor.take(&["EXTENDED"]) || cursor.take(&["FORMATTED"]);
    Ok(Describe { table: cursor.table_name(default_schema)?, extended })
}
