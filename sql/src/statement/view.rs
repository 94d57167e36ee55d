//! Views and schemas.
//!
//! ```sql
//! CREATE [OR REPLACE] [TEMPORARY] VIEW [IF NOT EXISTS] v [(a [COMMENT '…'], …)] [COMMENT '…'] AS query
//! ALTER VIEW v AS query
//! ALTER VIEW v RENAME TO w
//! CREATE SCHEMA [IF NOT EXISTS] s
//! ```

use crate::TableName;
use crate::dialect::{Cursor, parse_query};
use crate::name::quote;
use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::tokenizer::Token;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidemill_core::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateView {
    pub or_replace: bool,
    pub if_not_exists: bool,
    /// Known to this session only, and gone with it.
    pub temporary: bool,
    pub view: ViewDef,
}

/// A view as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDef {
    pub name: TableName,
    /// The text behind `AS`.
    pub query: String,
    /// The schema in which the query's unqualified names are looked up.
    pub default_schema: String,
    /// Names for the query's columns; none where they keep their own.
    #[serde(default)]
    pub columns: Vec<String>,
    #[serde(default)]
    pub comment: Option<String>,
    /// Comments by column.
    #[serde(default)]
    pub column_comments: BTreeMap<String, String>,
}

impl ViewDef {
    pub fn parse_query(&self) -> Result<Box<Query>> {
        let parsed = match self.columns.as_slice() {
            [] => parse_query(&self.query),
            columns => {
                let columns: Vec<String> = columns.iter().map(|column| quote(column)).collect();
                // The query ends on a line of its own: it may end in a comment.
                let renamed = format!("SELECT * FROM ({}\n) AS v({})", self.query, columns.join(", "));
                parse_query(&renamed)
            }
        };
        parsed.map_err(|error| error.context(format!("view {}", self.name)))
    }

    /// The statement that makes it.
    pub fn to_sql(&self) -> String {
        let columns = match self.columns.as_slice() {
            [] => String::new(),
            columns => {
                let columns: Vec<String> = columns.iter().map(|column| quote(column)).collect();
                format!(" ({})", columns.join(", "))
            }
        };
        format!("CREATE VIEW {}{columns} AS {}", self.name.to_sql(), self.query)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterView {
    pub name: TableName,
    pub change: ViewChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ViewChange {
    /// Another query; the view's comment stays, its column names go.
    Query {
        query: String,
        default_schema: String,
    },
    Rename(TableName),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSchema {
    pub if_not_exists: bool,
    pub name: String,
}

pub(super) fn parse(
    cursor: &mut Cursor<'_>,
    or_replace: bool,
    temporary: bool,
    default_schema: &str,
) -> Result<CreateView> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.table_name(default_schema)?;
    let mut column_comments = BTreeMap::new();
    let mut columns = Vec::new();
    if cursor.peek_is(&Token::LParen) {
        for (column, comment) in cursor.list(|cursor| Ok((cursor.ident()?, comment(cursor)?)))? {
            column_comments.extend(comment.map(|comment| (column.clone(), comment)));
            columns.push(column);
        }
    }
    let comment = comment(cursor)?;
    cursor.expect(&["AS"])?;
    let (_, query) = cursor.with_text(Cursor::query)?;
    let default_schema = default_schema.to_owned();
    let view = ViewDef { name, query, default_schema, columns, comment, column_comments };
    Ok(CreateView { or_replace, if_not_exists, temporary, view })
}

fn comment(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    if cursor.take(&["COMMENT"]) { cursor.string().map(Some) } else { Ok(None) }
}

pub(super) fn parse_alter(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<AlterView> {
    cursor.expect(&["ALTER", "VIEW"])?;
    let name = cursor.table_name(default_schema)?;
    let change = match cursor.one_of(&["AS", "RENAME"])? {
        "AS" => {
            let (_, query) = cursor.with_text(Cursor::query)?;
            ViewChange::Query { query, default_schema: default_schema.to_owned() }
        }
        _ => {
            cursor.expect(&["TO"])?;
            ViewChange::Rename(cursor.table_name(default_schema)?)
        }
    };
    Ok(AlterView { name, change })
}

pub(super) fn parse_schema(cursor: &mut Cursor<'_>) -> Result<CreateSchema> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    Ok(CreateSchema { if_not_exists, name: cursor.schema_name()? })
}
