//! `DELETE FROM`, `UPDATE`, `TRUNCATE TABLE`: changes of rows that are there.
//!
//! ```sql
//! DELETE FROM t [[AS] a] [WHERE condition]
//! UPDATE t [[AS] a] SET column = expression, … [WHERE condition]
//! TRUNCATE TABLE t
//! ```
//! Conditions and expressions are kept as SQL text; see [`crate::changes`] for the queries made of them.

use super::merge::Merge;
use super::{alter::AlterTable, merge};
use crate::TableName;
use crate::dialect::Cursor;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::{Code, Error, Result};

/// A change of a table, of its rows or of what it is.
#[derive(Clone, Debug, PartialEq)]
pub enum TableChange {
    Delete(Delete),
    Update(Update),
    Merge(Merge),
    Truncate(TableName),
    Alter(AlterTable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    pub table: TableName,
    pub alias: String,
    pub condition: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub table: TableName,
    pub alias: String,
    /// Columns with what they become.
    pub set: Vec<(String, String)>,
    pub condition: Option<String>,
}

impl TableChange {
    pub fn table(&self) -> &TableName {
        match self {
            Self::Delete(delete) => &delete.table,
            Self::Update(update) => &update.table,
            Self::Merge(merge) => &merge.table,
            Self::Truncate(table) => table,
            Self::Alter(alter) => &alter.table,
        }
    }
}

/// Begins at the first word, which is one of those above, `MERGE` or `ALTER`.
pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<TableChange> {
    match cursor.one_of(&["DELETE", "UPDATE", "TRUNCATE", "MERGE", "ALTER"])? {
        "DELETE" => {
            cursor.expect(&["FROM"])?;
            let (table, alias) = target(cursor, default_schema)?;
            Ok(TableChange::Delete(Delete { table, alias, condition: condition(cursor)? }))
        }
        "UPDATE" => {
            let (table, alias) = target(cursor, default_schema)?;
            cursor.expect(&["SET"])?;
            let set = assignments(cursor, &alias)?;
            Ok(TableChange::Update(Update { table, alias, set, condition: condition(cursor)? }))
        }
        "TRUNCATE" => {
            cursor.take(&["TABLE"]);
            cursor.table_name(default_schema).map(TableChange::Truncate)
        }
        "MERGE" => merge::parse(cursor, default_schema).map(TableChange::Merge),
        _ => super::alter::parse(cursor, default_schema).map(TableChange::Alter),
    }
}

/// A table and the name by which the statement calls it.
pub(super) fn target(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<(TableName, String)> {
    let table = cursor.table_name(default_schema)?;
    let alias = alias(cursor)?.unwrap_or_else(|| table.name.clone());
    Ok((table, alias))
}

pub(super) fn alias(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    let next = cursor.word_at(0);
    let ends = matches!(next.as_deref(), Some("WHERE" | "SET" | "USING" | "ON" | "WHEN"));
    let named = cursor.take(&["AS"]) || (next.is_some() && !ends) || cursor.peek_is_quoted();
    if named { cursor.ident().map(Some) } else { Ok(None) }
}

fn condition(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    match cursor.take(&["WHERE"]) {
        true => Ok(Some(cursor.expr()?.to_string())),
        false => Ok(None),
    }
}

/// `column = expression, …`; the column may be qualified by the table's name.
pub(super) fn assignments(cursor: &mut Cursor<'_>, alias: &str) -> Result<Vec<(String, String)>> {
    let mut set: Vec<(String, String)> = Vec::new();
    loop {
        let parts = cursor.dotted()?;
        let column = match parts.as_slice() {
            [column] => column.clone(),
            [table, column] if table == alias => column.clone(),
            _ => {
                let message = format!("SET of `{}`", parts.join("."));
                return Err(Error::new(Code::Unsupported, message)
                    .hint("set the whole column: SET s = named_struct(…)"));
            }
        };
        cursor.expect_token(&Token::Eq)?;
        if set.iter().any(|(known, _)| *known == column) {
            let message = format!("SET names the column `{column}` twice");
            return Err(Error::new(Code::InvalidStatement, message));
        }
        set.push((column, cursor.expr()?.to_string()));
        if !cursor.take_token(&Token::Comma) {
            return Ok(set);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse};

    fn change(text: &str) -> Result<TableChange> {
        match parse(text, "public")? {
            Statement::Change(change) => Ok(*change),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_names_and_conditions() {
        let delete = change("DELETE FROM s.t AS x WHERE x.a IN (SELECT b FROM u) AND c = 'it''s' -- why\n");
        let expected = Delete {
            table: TableName::new("s", "t"),
            alias: "x".to_owned(),
            condition: Some("x.a IN (SELECT b FROM u) AND c = 'it''s'".to_owned()),
        };
        assert_eq!(delete.unwrap(), TableChange::Delete(expected));
        let TableChange::Update(update) = change("UPDATE t SET a = a + 1, t.b = NULL").unwrap() else {
            panic!()
        };
        assert_eq!(update.alias, "t");
        assert_eq!(update.set, [("a".to_owned(), "a + 1".to_owned()), ("b".to_owned(), "NULL".to_owned())]);
        assert_eq!(update.condition, None);
        assert_eq!(change("TRUNCATE TABLE t").unwrap(), TableChange::Truncate(TableName::new("public", "t")));
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(change("UPDATE t SET a = 1, a = 2").unwrap_err().code, Code::InvalidStatement);
        assert_eq!(change("UPDATE t SET s.x = 1").unwrap_err().code, Code::Unsupported);
        assert_eq!(change("DELETE t WHERE a = 1").unwrap_err().code, Code::Syntax);
    }
}
