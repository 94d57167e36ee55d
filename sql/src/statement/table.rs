//! `CREATE TABLE`: a Delta table under the lake root, empty or filled by a query.
//!
//! ```sql
//! CREATE [OR REPLACE] TABLE [IF NOT EXISTS] t [(a INT, …)] [PARTITIONED BY (a)] [WITH (location = '…')]
//! [AS SELECT …]
//! ```
//! OR REPLACE is read only to be refused with what to do instead.

use crate::TableName;
use crate::dialect::{Cursor, OptionReader, column_schema};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::tokenizer::Token;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub or_replace: bool,
    pub if_not_exists: bool,
    pub name: TableName,
    /// `None`: the query's schema.
    pub schema: Option<SchemaRef>,
    pub partition_by: Vec<String>,
    /// `None`: under the lake root.
    pub location: Option<String>,
    pub comment: Option<String>,
    pub query: Option<Box<Query>>,
}

/// A table as the journal keeps it. A Delta table at its place under the lake root can be read without an
/// entry, but is not listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableDef {
    pub name: TableName,
    pub format: TableFormat,
    /// A folder, file or URL.
    pub location: String,
    /// Whether the files are someone else's: then DROP leaves them alone and INSERT is refused.
    pub external: bool,
    /// Declared or inferred columns without the partition columns; `None` for Delta, whose log has them.
    pub schema: Option<SchemaRef>,
    /// Partition columns with their types, for folders named `column=value`; empty for Delta.
    pub partition_by: SchemaRef,
    /// Options of the format, such as `format.has_header`.
    pub options: BTreeMap<String, String>,
}

impl TableDef {
    /// A table of ours.
    pub fn delta(name: TableName, location: String) -> Self {
        Self {
            name,
            format: TableFormat::Delta,
            location,
            external: false,
            schema: None,
            partition_by: Arc::new(Schema::empty()),
            options: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableFormat {
    Delta,
    Parquet,
    Csv,
    Json,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, or_replace: bool, default_schema: &str) -> Result<CreateTable> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    if if_not_exists && or_replace {
        let message = "OR REPLACE and IF NOT EXISTS exclude each other";
        return Err(Error::new(Code::InvalidStatement, message));
    }
    let name = cursor.table_name(default_schema)?;
    let schema = match cursor.peek_is(&Token::LParen) {
        true => Some(Arc::new(column_schema(cursor.list(Cursor::column)?)?)),
        false => None,
    };
    if cursor.take(&["USING"]) || cursor.take(&["STORED", "AS"]) {
        cursor.one_of(&["DELTA"])?;
    }
    let partition_by = match cursor.take(&["PARTITIONED", "BY"]) {
        true => cursor.idents_in_parentheses()?,
        false => Vec::new(),
    };
    let options = if cursor.take(&["WITH"]) { cursor.options()? } else { BTreeMap::new() };
    let query = if cursor.take(&["AS"]) { Some(cursor.query()?) } else { None };

    let mut reader = OptionReader::new("CREATE TABLE", options);
    let location = reader.text("location");
    let comment = reader.text("comment");
    reader.finish()?;
    if schema.is_none() && query.is_none() {
        return Err(Error::new(Code::InvalidStatement, "a table needs columns or a query")
            .hint("CREATE TABLE t (a INT, …) or CREATE TABLE t AS SELECT …"));
    }
    if let Some(schema) = &schema {
        for column in &partition_by {
            if schema.field_with_name(column).is_err() {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                let message = format!("PARTITIONED BY: no column `{column}`");
                return Err(Error::new(Code::UnknownColumn, message).suggest(column, names));
            }
        }
    }
    Ok(CreateTable { or_replace, if_not_exists, name, schema, partition_by, location, comment, query })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse};

    fn create(text: &str) -> Result<CreateTable> {
        match parse(text, "public")? {
            Statement::CreateTable(create) => Ok(create),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn from_columns_or_from_a_query() {
        let table = create("CREATE TABLE t (a INT NOT NULL, day DATE) PARTITIONED BY (day)").unwrap();
        assert_eq!(table.partition_by, ["day"]);
        assert!(table.query.is_none());
        let table =
            create("CREATE OR REPLACE TABLE s.t WITH (location = 's3://b/t') AS SELECT 1 AS a").unwrap();
        assert_eq!((table.name, table.or_replace), (TableName::new("s", "t"), true));
        assert_eq!(table.location.as_deref(), Some("s3://b/t"));
        assert!(table.schema.is_none() && table.query.is_some());
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(create("CREATE TABLE t").unwrap_err().code, Code::InvalidStatement);
        let error = create("CREATE TABLE t (day DATE) PARTITIONED BY (dai)").unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (Code::UnknownColumn, Some("did you mean `day`?")));
        assert_eq!(create("CREATE TABLE t (a INT) WITH (lokation = 'x')").unwrap_err().code, Code::BadOption);
    }
}
