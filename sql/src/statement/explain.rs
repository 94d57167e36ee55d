//! `EXPLAIN [ANALYZE] [VERBOSE] statement`: the plan, and the engine that would take it.

use super::{Statement, TableChange};
use crate::dialect::Cursor;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub struct Explain {
    /// Run it and show what happened.
    pub analyze: bool,
    pub verbose: bool,
    /// A query, an INSERT, DELETE, UPDATE or MERGE, a `CREATE TABLE … AS` or a `CREATE STREAMING TABLE`.
    pub statement: Box<Statement>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Explain> {
    cursor.expect(&["EXPLAIN"])?;
    let analyze = cursor.take(&["ANALYZE"]);
    let verbose = cursor.take(&["VERBOSE"]);
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
        return Ok(Explain { analyze, verbose, statement: Box::new(statement) });
    }
    Err(Error::new(Code::Unsupported, "there is no plan of this statement to explain").hint(
        "EXPLAIN takes queries, INSERT, DELETE, UPDATE, MERGE and CREATE TABLE … AS; without ANALYZE also CREATE STREAMING TABLE",
    ))
}
