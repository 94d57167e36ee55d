//! Looks at a statement's first words and hands it to the statement's own file.

use super::{
    Statement, change, comment, connection, control, describe, drop, explain, external_table, function,
    insert, load, maintain, pipeline, set, show, source, table, view,
};
use crate::dialect::Cursor;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::{Code, Error, Result};

/// The words with which our statements begin.
const LEADING: &[&str] = &[
    "ALTER", "COMMENT", "CONVERT", "CREATE", "DELETE", "DESCRIBE", "DROP", "EXPLAIN", "INSERT", "MERGE",
    "OPTIMIZE", "PAUSE", "RESET", "RESTORE", "RESUME", "RUN", "SELECT", "SET", "SHOW", "STOP", "TABLE",
    "TRUNCATE", "UPDATE", "USE", "VACUUM", "VALUES", "WITH",
];

/// Words that begin statements elsewhere: refused as unsupported, not as misspelt.
const ELSEWHERE: &[&str] = &[
    "ANALYZE",
    "BEGIN",
    "CALL",
    "COMMIT",
    "COPY",
    "DEALLOCATE",
    "EXECUTE",
    "GRANT",
    "KILL",
    "PREPARE",
    "REVOKE",
    "ROLLBACK",
    "START",
];

/// Parses one statement; a semicolon may end it. Unqualified names are taken from `default_schema`.
///
/// # Errors
/// `Code::Syntax` with line, column and an excerpt; `Code::Unsupported`, `Code::BadOption` and others where
/// the words are right and what they say is not.
pub fn parse(text: &str, default_schema: &str) -> Result<Statement> {
    let mut cursor = Cursor::new(text)?;
    while cursor.take_token(&Token::SemiColon) {}
    if cursor.peek_is(&Token::EOF) {
        return Err(Error::new(Code::Syntax, "there is no statement"));
    }
    let statement = statement(&mut cursor, default_schema)?;
    cursor.end()?;
    Ok(statement)
}

pub(super) fn statement(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Statement> {
    let word = cursor.word_at(0);
    match word.as_deref() {
        Some("SELECT" | "WITH" | "VALUES" | "TABLE") => cursor.query().map(Statement::Query),
        None if cursor.peek_is(&Token::LParen) => cursor.query().map(Statement::Query),
        Some("CREATE") => create(cursor, default_schema),
        Some("EXPLAIN") => explain::parse(cursor, default_schema).map(Statement::Explain),
        Some("INSERT") => insert::parse(cursor, default_schema).map(Statement::Insert),
        Some("ALTER") if cursor.word_at(1).as_deref() == Some("VIEW") => {
            view::parse_alter(cursor, default_schema).map(Statement::AlterView)
        }
        Some("DELETE" | "UPDATE" | "TRUNCATE" | "MERGE" | "ALTER") => {
            change::parse(cursor, default_schema).map(|change| Statement::Change(Box::new(change)))
        }
        Some("RUN") => load::parse_run(cursor).map(Statement::RunLoad),
        Some("PAUSE" | "RESUME" | "STOP") => control::parse(cursor, default_schema).map(Statement::Control),
        Some("DROP") => drop::parse(cursor, default_schema).map(Statement::Drop),
        Some("SHOW") => show::parse(cursor, default_schema).map(Statement::Show),
        Some("SET" | "RESET") => set::parse(cursor).map(Statement::Set),
        Some("DESCRIBE" | "DESC") if maintain::is_description(cursor) => {
            maintain::describe(cursor, default_schema).map(Statement::Maintain)
        }
        Some("DESCRIBE" | "DESC") => describe::parse(cursor, default_schema).map(Statement::Describe),
        Some("COMMENT") => comment::parse(cursor, default_schema).map(Statement::Comment),
        Some("USE") => set::parse_use(cursor).map(Statement::Set),
        Some("VACUUM" | "RESTORE" | "CONVERT" | "OPTIMIZE") => {
            maintain::parse(cursor, default_schema).map(Statement::Maintain)
        }
        Some(word) if ELSEWHERE.contains(&word) => {
            Err(Error::new(Code::Unsupported, format!("{word} is not supported")).hint(allowed()))
        }
        Some(word) => Err(cursor.expected("a statement").suggest(word, LEADING.iter().copied())),
        None => Err(cursor.expected("a statement").hint(allowed())),
    }
}

fn create(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Statement> {
    const REPLACEABLE: &[&str] = &[
        "CONNECTION",
        "EXTERNAL",
        "FUNCTION",
        "LOAD",
        "MACRO",
        "SOURCE",
        "TABLE",
        "TEMP",
        "TEMPORARY",
        "VIEW",
    ];
    const ALL: &[&str] = &[
        "CONNECTION",
        "DATABASE",
        "EXTERNAL",
        "FUNCTION",
        "LOAD",
        "MACRO",
        "SCHEMA",
        "SOURCE",
        "STREAMING",
        "TABLE",
        "TEMP",
        "TEMPORARY",
        "VIEW",
    ];
    cursor.expect(&["CREATE"])?;
    let or_replace = cursor.take(&["OR", "REPLACE"]);
    let kind = cursor.one_of(if or_replace { REPLACEABLE } else { ALL })?;
    match kind {
        "EXTERNAL" | "STREAMING" => cursor.expect(&["TABLE"])?,
        "TEMP" | "TEMPORARY" => cursor.expect(&["VIEW"])?,
        _ => {}
    }
    Ok(match kind {
        "SOURCE" => Statement::CreateSource(source::parse(cursor, or_replace)?),
        "STREAMING" => Statement::CreateStreamingTable(pipeline::parse(cursor, default_schema)?),
        "CONNECTION" => Statement::CreateConnection(connection::parse(cursor, or_replace)?),
        "LOAD" => Statement::CreateLoad(load::parse(cursor, or_replace, default_schema)?),
        "EXTERNAL" => {
            Statement::CreateExternalTable(external_table::parse(cursor, or_replace, default_schema)?)
        }
        "VIEW" | "TEMP" | "TEMPORARY" => {
            Statement::CreateView(view::parse(cursor, or_replace, kind != "VIEW", default_schema)?)
        }
        "FUNCTION" | "MACRO" => {
            let is_macro = kind == "MACRO";
            Statement::CreateFunction(function::parse(cursor, or_replace, is_macro, default_schema)?)
        }
        "SCHEMA" | "DATABASE" => Statement::CreateSchema(view::parse_schema(cursor)?),
        _ => Statement::CreateTable(table::parse(cursor, or_replace, default_schema)?),
    })
}

fn allowed() -> String {
    format!("statements begin with {}", LEADING.join(", "))
}
