//! `CREATE [OR REPLACE] VIEW [IF NOT EXISTS] v AS query` and `CREATE SCHEMA [IF NOT EXISTS] s`.

use crate::TableName;
use crate::dialect::{Cursor, parse_query};
use datafusion::sql::sqlparser::ast::Query;
use serde::{Deserialize, Serialize};
use tidemill_core::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateView {
    pub or_replace: bool,
    pub if_not_exists: bool,
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
}

impl ViewDef {
    pub fn parse_query(&self) -> Result<Box<Query>> {
        parse_query(&self.query).map_err(|error| error.context(format!("view {}", self.name)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSchema {
    pub if_not_exists: bool,
    pub name: String,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, or_replace: bool, default_schema: &str) -> Result<CreateView> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.table_name(default_schema)?;
    cursor.expect(&["AS"])?;
    let (_, query) = cursor.with_text(Cursor::query)?;
    let view = ViewDef { name, query, default_schema: default_schema.to_owned() };
    Ok(CreateView { or_replace, if_not_exists, view })
}

pub(super) fn parse_schema(cursor: &mut Cursor<'_>) -> Result<CreateSchema> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    Ok(CreateSchema { if_not_exists, name: cursor.ident()? })
}
