//! `SHOW …`: names for queries over system tables and `information_schema`.

use crate::dialect::Cursor;
use crate::name::{CATALOG, DEFAULT_SCHEMA, SYSTEM_SCHEMA, TableName};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    Pipelines,
    Sources,
    Connections,
    Loads,
    Executors,
    Jobs,
    /// Tables and views, of all schemas but the system's where none is named.
    Tables {
        schema: Option<String>,
        like: Option<String>,
    },
    Views {
        schema: Option<String>,
        like: Option<String>,
    },
    Schemas {
        like: Option<String>,
    },
    Columns(TableName),
    Functions {
        like: Option<String>,
    },
    /// The statement that makes a table or view.
    Create(TableName),
    /// A table's properties, or one of them.
    Properties {
        table: TableName,
        key: Option<String>,
    },
    /// Every session variable.
    All,
    /// One session variable, such as `engine`.
    Variable(String),
}

impl Show {
    /// The query that answers it; `None` for what the session or the catalog knows itself.
    pub fn query(&self) -> Option<String> {
        let system = |table: &str| Some(format!("SELECT * FROM {CATALOG}.{SYSTEM_SCHEMA}.{table}"));
        match self {
            Show::Pipelines => system("pipelines"),
            Show::Sources => system("sources"),
            Show::Connections => system("connections"),
            Show::Loads => system("loads"),
            Show::Executors => system("executors"),
            Show::Jobs => system("jobs"),
            Show::Tables { schema, like } => Some(tables(schema.as_deref(), like.as_deref(), "")),
            Show::Views { schema, like } => {
                Some(tables(schema.as_deref(), like.as_deref(), " AND table_type = 'VIEW'"))
            }
            Show::Schemas { like } => Some(format!(
                "SELECT schema_name, schema_name = '{DEFAULT_SCHEMA}' AS is_default \
                 FROM {CATALOG}.information_schema.schemata WHERE {} ORDER BY schema_name",
                matches("schema_name", like.as_deref())
            )),
            Show::Columns(table) => Some(format!(
                "SELECT column_name, data_type, is_nullable FROM {CATALOG}.information_schema.columns \
                 WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
                literal(&table.schema),
                literal(&table.name)
            )),
            Show::Functions { like } => Some(format!(
                "SELECT function_name, kind, definition FROM \
                 (SELECT routine_name AS function_name, lower(function_type) AS kind, \
                  min(coalesce(syntax_example, routine_name || '(…)')) AS definition \
                  FROM {CATALOG}.information_schema.routines GROUP BY routine_name, function_type \
                  UNION ALL SELECT name, kind, definition FROM {CATALOG}.{SYSTEM_SCHEMA}.functions) \
                 WHERE {} ORDER BY function_name, kind",
                matches("function_name", like.as_deref())
            )),
            Show::Create(_) | Show::Properties { .. } | Show::All | Show::Variable(_) => None,
        }
    }
}

fn tables(schema: Option<&str>, like: Option<&str>, and: &str) -> String {
    let schema = match schema {
        Some(schema) => format!("table_schema = {}", literal(schema)),
        None => format!("table_schema NOT IN ('information_schema', '{SYSTEM_SCHEMA}')"),
    };
    format!(
        "SELECT table_schema, table_name, table_type FROM {CATALOG}.information_schema.tables \
         WHERE {schema} AND {}{and} ORDER BY table_schema, table_name",
        matches("table_name", like)
    )
}

/// A condition on a name. Spark's `*` means the same as `%`.
fn matches(column: &str, like: Option<&str>) -> String {
    match like {
        Some(pattern) => format!("{column} LIKE {}", literal(&pattern.replace('*', "%"))),
        None => "true".to_owned(),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Show> {
    cursor.expect(&["SHOW"])?;
    if cursor.take(&["COLUMNS"]) {
        cursor.one_of(&["FROM", "IN"])?;
        return Ok(Show::Columns(cursor.table_name(default_schema)?));
    }
    if cursor.take(&["CREATE"]) {
        cursor.one_of(&["TABLE", "VIEW"])?;
        return Ok(Show::Create(cursor.table_name(default_schema)?));
    }
    if cursor.take(&["TBLPROPERTIES"]) {
        let table = cursor.table_name(default_schema)?;
        let key = match cursor.take_token(&Token::LParen) {
            true => {
                let key = cursor.string()?;
                cursor.expect_token(&Token::RParen)?;
                Some(key)
            }
            false => None,
        };
        return Ok(Show::Properties { table, key });
    }
    if cursor.take(&["TABLES"]) {
        let schema = schema(cursor)?;
        return Ok(Show::Tables { schema, like: like(cursor)? });
    }
    if cursor.take(&["VIEWS"]) {
        let schema = schema(cursor)?;
        return Ok(Show::Views { schema, like: like(cursor)? });
    }
    if cursor.take(&["SCHEMAS"]) || cursor.take(&["DATABASES"]) {
        return Ok(Show::Schemas { like: like(cursor)? });
    }
    if cursor.take(&["FUNCTIONS"]) {
        return Ok(Show::Functions { like: like(cursor)? });
    }
    let simple = [
        ("PIPELINES", Show::Pipelines),
        ("SOURCES", Show::Sources),
        ("CONNECTIONS", Show::Connections),
        ("LOADS", Show::Loads),
        ("EXECUTORS", Show::Executors),
        ("JOBS", Show::Jobs),
        ("ALL", Show::All),
    ];
    for (word, show) in simple {
        if cursor.take(&[word]) {
            return Ok(show);
        }
    }
    Ok(Show::Variable(cursor.dotted()?.join(".")))
}

/// `IN schema` or `FROM schema`.
fn schema(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    match cursor.take(&["IN"]) || cursor.take(&["FROM"]) {
        true => cursor.schema_name().map(Some),
        false => Ok(None),
    }
}

/// `LIKE 'pattern'`; Spark leaves the word out.
fn like(cursor: &mut Cursor<'_>) -> Result<Option<String>> {
    let named = cursor.take(&["LIKE"]);
    match named || !(cursor.peek_is(&Token::EOF) || cursor.peek_is(&Token::SemiColon)) {
        true => cursor.string().map(Some),
        false => Ok(None),
    }
}
