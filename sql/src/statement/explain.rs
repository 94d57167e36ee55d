//! `EXPLAIN [ANALYZE] [VERBOSE] [FORMAT INDENT | TREE | PGJSON | GRAPHVIZ] statement`: the plan, and the engine that
//! would take it. `EXPLAIN (ANALYZE, VERBOSE, FORMAT …)` says the same.

use super::{Statement, TableChange};
use crate::dialect::Cursor;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    /// Run it and show what happened.
    pub analyze: bool,
    pub verbose: bool,
    pub format: ExplainFormat,
    /// A query, an INSERT, DELETE, UPDATE or MERGE, a `CREATE TABLE … AS` or a `CREATE STREAMING TABLE`.
    pub statement: Box<Statement>,
}

/// How plans are written. What EXPLAIN ANALYZE measured is always indented text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExplainFormat {
    #[default]
    Indent,
    Tree,
    /// The logical plan as PostgreSQL's JSON.
    PgJson,
    /// The logical plan for `dot`.
    Graphviz,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Explain> {
    cursor.expect(&["EXPLAIN"])?;
    let (mut analyze, mut verbose, mut format) = (false, false, ExplainFormat::default());
    // `EXPLAIN (SELECT 1)` is a query in parentheses.
    let options = cursor.peek_is(&Token::LParen)
        && matches!(cursor.word_at(1).as_deref(), Some("ANALYZE" | "VERBOSE" | "FORMAT"));
    if options {
        cursor.list(|cursor| option(cursor, &mut analyze, &mut verbose, &mut format))?;
    } else {
        while matches!(cursor.word_at(0).as_deref(), Some("ANALYZE" | "VERBOSE" | "FORMAT")) {
            option(cursor, &mut analyze, &mut verbose, &mut format)?;
        }
    }
    if analyze && format != ExplainFormat::Indent {
        return Err(Error::new(Code::Unsupported, "EXPLAIN ANALYZE in another format")
            .hint("leave FORMAT out, or leave ANALYZE out"));
    }
    let statement = super::parse::statement(cursor, default_schema)?;
    let planned = match &statement {
        Statement::Query(_) | Statement::Insert(_) => true,
        Statement::Change(change) => {
            matches!(**change, TableChange::Delete(_) | TableChange::Update(_) | TableChange::Merge(_))
        }
        Statement::CreateTable(create) => create.query.is_some(),
        // Analyzing would have to start a pipeline.
        Statement::CreateStreamingTable(_) => !analyze,
        _ => false,
    };
    if planned {
        return Ok(Explain { analyze, verbose, format, statement: Box::new(statement) });
    }
    Err(Error::new(Code::Unsupported, "there is no plan of this statement to explain").hint(
        "EXPLAIN takes queries, INSERT, DELETE, UPDATE, MERGE and CREATE TABLE … AS; without ANALYZE also CREATE STREAMING TABLE",
    ))
}

fn option(
    cursor: &mut Cursor<'_>,
    analyze: &mut bool,
    verbose: &mut bool,
    format: &mut ExplainFormat,
) -> Result<()> {
    match cursor.one_of(&["ANALYZE", "VERBOSE", "FORMAT"])? {
        "ANALYZE" => *analyze = true,
        "VERBOSE" => *verbose = true,
        _ => {
            *format = match cursor.one_of(&["INDENT", "TEXT", "TREE", "PGJSON", "GRAPHVIZ"])? {
                "TREE" => ExplainFormat::Tree,
                "PGJSON" => ExplainFormat::PgJson,
                "GRAPHVIZ" => ExplainFormat::Graphviz,
                _ => ExplainFormat::Indent,
            }
        }
    }
    Ok(())
}
