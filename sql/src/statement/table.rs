//! `CREATE TABLE`: a Delta table under the lake root, empty or filled by a query.
//!
//! ```sql
//! CREATE [OR REPLACE] TABLE [IF NOT EXISTS] t [(a INT …, …)] [USING DELTA] [PARTITIONED BY (a)] [COMMENT '…']
//! [TBLPROPERTIES ('k' = 'v')] [LOCATION '…'] [WITH (location = '…')] [AS SELECT …]
//! ```
//! What may stand behind a column's type is in [`super::table_columns`].

use super::table_columns::{self, TableColumns};
use crate::TableName;
use crate::dialect::{Cursor, OptionReader};
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
    pub properties: BTreeMap<String, String>,
    /// Comments by column.
    pub column_comments: BTreeMap<String, String>,
    /// Expressions of generated columns by column, as the log keeps them.
    pub generated: BTreeMap<String, String>,
    /// CHECK conditions by name, likewise.
    pub constraints: BTreeMap<String, String>,
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
    let columns = match cursor.peek_is(&Token::LParen) {
        true => Some(table_columns::parse(cursor, &name.name)?),
        false => None,
    };
    let (mut partition_by, mut comment, mut location, mut properties, mut options) =
        (None, None, None, None, None);
    loop {
        if cursor.take(&["USING"]) || cursor.take(&["STORED", "AS"]) {
            cursor.one_of(&["DELTA"])?;
        } else if cursor.take(&["PARTITIONED", "BY"]) {
            once(&mut partition_by, "PARTITIONED BY", cursor.idents_in_parentheses()?)?;
        } else if cursor.take(&["COMMENT"]) {
            once(&mut comment, "COMMENT", cursor.string()?)?;
        } else if cursor.take(&["LOCATION"]) {
            once(&mut location, "LOCATION", cursor.string()?)?;
        } else if cursor.take(&["TBLPROPERTIES"]) {
            once(&mut properties, "TBLPROPERTIES", cursor.options()?)?;
        } else if cursor.take(&["WITH"]) {
            once(&mut options, "WITH", cursor.options()?)?;
        } else {
            break;
        }
    }
    let query = if cursor.take(&["AS"]) { Some(cursor.query()?) } else { None };

    let mut reader = OptionReader::new("CREATE TABLE", options.unwrap_or_default());
    if let Some(given) = reader.text("location") {
        once(&mut location, "a location", given)?;
    }
    if let Some(given) = reader.text("comment") {
        once(&mut comment, "a comment", given)?;
    }
    reader.finish()?;
    let partition_by: Vec<String> = partition_by.unwrap_or_default();
    let (schema, column_comments, generated, constraints) = match columns {
        Some(TableColumns { schema, comments, generated, constraints }) => {
            (Some(Arc::new(schema)), comments, generated, constraints)
        }
        None => Default::default(),
    };
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
    Ok(CreateTable {
        or_replace,
        if_not_exists,
        name,
        schema,
        partition_by,
        location,
        comment,
        properties: properties.unwrap_or_default(),
        column_comments,
        generated,
        constraints,
        query,
    })
}

fn once<T>(place: &mut Option<T>, what: &str, given: T) -> Result<()> {
    match place.replace(given) {
        None => Ok(()),
        Some(_) => Err(Error::new(Code::InvalidStatement, format!("{what} is given twice"))),
    }
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
    fn clauses_come_in_any_order_and_once() {
        let table = create(
            "CREATE TABLE t (a INT COMMENT 'x', b INT GENERATED ALWAYS AS (a + 1)) COMMENT 'c' USING DELTA \
             TBLPROPERTIES ('delta.appendOnly' = 'true', owner = 'me') PARTITIONED BY (b) LOCATION '/x' AS SELECT 1",
        )
        .unwrap();
        assert_eq!((table.comment.as_deref(), table.location.as_deref()), (Some("c"), Some("/x")));
        assert_eq!(table.properties["delta.appendOnly"], "true");
        assert_eq!((table.column_comments["a"].as_str(), table.generated["b"].as_str()), ("x", "a + 1"));
        for text in ["COMMENT 'a' COMMENT 'b'", "COMMENT 'a' WITH (comment = 'b')"] {
            let error = create(&format!("CREATE TABLE t (a INT) {text}")).unwrap_err();
            assert_eq!(error.code, Code::InvalidStatement, "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(create("CREATE TABLE t").unwrap_err().code, Code::InvalidStatement);
        let error = create("CREATE TABLE t (day DATE) PARTITIONED BY (dai)").unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (Code::UnknownColumn, Some("did you mean `day`?")));
        assert_eq!(create("CREATE TABLE t (a INT) WITH (lokation = 'x')").unwrap_err().code, Code::BadOption);
    }
}
