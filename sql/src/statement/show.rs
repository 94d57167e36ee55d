//! `SHOW …`: names for queries over system tables and `information_schema`.

use crate::dialect::Cursor;
use crate::name::{CATALOG, DEFAULT_SCHEMA, SYSTEM_SCHEMA, TableName};
use tidemill_core::Result;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    Pipelines,
    Sources,
    Connections,
    Loads,
    Executors,
    Jobs,
    Tables,
    Schemas,
    Columns(TableName),
    /// Every session variable.
    All,
    /// One session variable, such as `engine`.
    Variable(String),
}

impl Show {
    /// The query that answers it; `None` for variables, which the session knows itself.
    pub fn query(&self) -> Option<String> {
        let system = |table: &str| Some(format!("SELECT * FROM {CATALOG}.{SYSTEM_SCHEMA}.{table}"));
        match self {
            Show::Pipelines => system("pipelines"),
            Show::Sources => system("sources"),
            Show::Connections => system("connections"),
            Show::Loads => system("loads"),
            Show::Executors => system("executors"),
            Show::Jobs => system("jobs"),
            Show::Tables => Some(format!(
                "SELECT table_schema, table_name, table_type FROM {CATALOG}.information_schema.tables \
                 WHERE table_schema NOT IN ('information_schema', '{SYSTEM_SCHEMA}') \
                 ORDER BY table_schema, table_name"
            )),
            Show::Schemas => Some(format!(
                "SELECT schema_name, schema_name = '{DEFAULT_SCHEMA}' AS is_default \
                 FROM {CATALOG}.information_schema.schemata ORDER BY schema_name"
            )),
            Show::Columns(table) => Some(format!(
                "SELECT column_name, data_type, is_nullable FROM {CATALOG}.information_schema.columns \
                 WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
                literal(&table.schema),
                literal(&table.name)
            )),
            Show::All | Show::Variable(_) => None,
        }
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
    let simple = [
        ("PIPELINES", Show::Pipelines),
        ("SOURCES", Show::Sources),
        ("CONNECTIONS", Show::Connections),
        ("LOADS", Show::Loads),
        ("EXECUTORS", Show::Executors),
        ("JOBS", Show::Jobs),
        ("TABLES", Show::Tables),
        ("SCHEMAS", Show::Schemas),
        ("ALL", Show::All),
    ];
    for (word, show) in simple {
        if cursor.take(&[word]) {
            return Ok(show);
        }
    }
    Ok(Show::Variable(cursor.dotted()?.join(".")))
}
