//! `MERGE INTO t USING source ON condition WHEN …`.
//!
//! ```sql
//! MERGE [WITH SCHEMA EVOLUTION] INTO t [[AS] a] USING {table | (query)} [[AS] s] ON condition
//!   WHEN MATCHED [AND condition] THEN {UPDATE SET * | UPDATE SET column = expression, … | DELETE}
//!   WHEN NOT MATCHED [BY TARGET] [AND condition] THEN INSERT {* | (columns) VALUES (expressions)}
//!   WHEN NOT MATCHED BY SOURCE [AND condition] THEN {UPDATE SET … | DELETE}
//! ```
//! Of several clauses of one kind the first whose condition holds is taken.

use super::change::{alias, assignments, target};
use crate::TableName;
use crate::dialect::Cursor;
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    pub table: TableName,
    pub alias: String,
    /// A table's full name or a query in parentheses, as SQL text.
    pub source: String,
    pub source_alias: String,
    pub on: String,
    /// In the order of the statement.
    pub clauses: Vec<MergeClause>,
    /// Columns that only the source has are added to the table.
    pub evolve: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeClause {
    pub when: MergeWhen,
    pub condition: Option<String>,
    pub action: MergeAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeWhen {
    Matched,
    NotMatched,
    NotMatchedBySource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeAction {
    Delete,
    Update(Vec<(String, String)>),
    /// Every column, from the source's column of the same name.
    UpdateAll,
    /// Columns with their values.
    Insert(Vec<(String, String)>),
    InsertAll,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Merge> {
    let evolve = cursor.take(&["WITH", "SCHEMA", "EVOLUTION"]);
    cursor.expect(&["INTO"])?;
    let (table, target_alias) = target(cursor, default_schema)?;
    cursor.expect(&["USING"])?;
    let (source, default_alias) = match cursor.take_token(&Token::LParen) {
        true => {
            let query = cursor.query()?;
            cursor.expect_token(&Token::RParen)?;
            (format!("({query})"), None)
        }
        false => {
            let name = cursor.table_name(default_schema)?;
            (name.to_sql(), Some(name.name))
        }
    };
    let Some(source_alias) = alias(cursor)?.or(default_alias) else {
        return Err(cursor.expected("a name for the source, as in `USING (…) AS s`"));
    };
    if source_alias == target_alias {
        let message = format!("target and source are both called `{source_alias}`");
        return Err(Error::new(Code::InvalidStatement, message).hint("MERGE INTO t AS a USING t AS b …"));
    }
    cursor.expect(&["ON"])?;
    let on = cursor.expr()?.to_string();
    let mut clauses = Vec::new();
    while cursor.take(&["WHEN"]) {
        clauses.push(clause(cursor, &target_alias)?);
    }
    if clauses.is_empty() {
        return Err(cursor.expected("`WHEN`"));
    }
    Ok(Merge { table, alias: target_alias, source, source_alias, on, clauses, evolve })
}

fn clause(cursor: &mut Cursor<'_>, target: &str) -> Result<MergeClause> {
    let when = match cursor.take(&["NOT"]) {
        false => {
            cursor.expect(&["MATCHED"])?;
            MergeWhen::Matched
        }
        true => {
            cursor.expect(&["MATCHED"])?;
            match cursor.take(&["BY"]) {
                true if cursor.one_of(&["TARGET", "SOURCE"])? == "SOURCE" => MergeWhen::NotMatchedBySource,
                _ => MergeWhen::NotMatched,
            }
        }
    };
    let condition = if cursor.take(&["AND"]) { Some(cursor.expr()?.to_string()) } else { None };
    cursor.expect(&["THEN"])?;
    let allowed: &[&str] = if when == MergeWhen::NotMatched { &["INSERT"] } else { &["UPDATE", "DELETE"] };
    let action = match cursor.one_of(allowed)? {
        "DELETE" => MergeAction::Delete,
        "UPDATE" => {
            cursor.expect(&["SET"])?;
            match when == MergeWhen::Matched && cursor.take_token(&Token::Mul) {
                true => MergeAction::UpdateAll,
                false => MergeAction::Update(assignments(cursor, target)?),
            }
        }
        _ if cursor.take_token(&Token::Mul) => MergeAction::InsertAll,
        _ => {
            let columns = cursor.list(|cursor| {
                let mut parts = cursor.dotted()?;
                parts.pop().ok_or_else(|| cursor.expected("a column"))
            })?;
            cursor.expect(&["VALUES"])?;
            let values = cursor.list(|cursor| Ok(cursor.expr()?.to_string()))?;
            if columns.len() != values.len() {
                let message = format!("INSERT names {} columns and {} values", columns.len(), values.len());
                return Err(Error::new(Code::InvalidStatement, message));
            }
            MergeAction::Insert(columns.into_iter().zip(values).collect())
        }
    };
    Ok(MergeClause { when, condition, action })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::TableChange;
    use crate::{Statement, parse};

    fn merge(text: &str) -> Result<Merge> {
        match parse(text, "public")? {
            Statement::Change(change) => match *change {
                TableChange::Merge(merge) => Ok(merge),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_every_clause() {
        let merge = merge(
            "MERGE INTO t USING (SELECT 1 AS id) AS s ON t.id = s.id \
             WHEN MATCHED AND s.gone THEN DELETE WHEN MATCHED THEN UPDATE SET * \
             WHEN NOT MATCHED BY TARGET AND s.id > 3 THEN INSERT (id, t.n) VALUES (s.id, 1 + 1) \
             WHEN NOT MATCHED THEN INSERT * WHEN NOT MATCHED BY SOURCE THEN UPDATE SET t.n = 0",
        )
        .unwrap();
        assert_eq!((merge.alias.as_str(), merge.source_alias.as_str()), ("t", "s"));
        let actions: Vec<_> =
            merge.clauses.iter().map(|clause| (clause.when, clause.action.clone())).collect();
        let pair = |column: &str, value: &str| (column.to_owned(), value.to_owned());
        assert_eq!(
            actions,
            [
                (MergeWhen::Matched, MergeAction::Delete),
                (MergeWhen::Matched, MergeAction::UpdateAll),
                (MergeWhen::NotMatched, MergeAction::Insert(vec![pair("id", "s.id"), pair("n", "1 + 1")])),
                (MergeWhen::NotMatched, MergeAction::InsertAll),
                (MergeWhen::NotMatchedBySource, MergeAction::Update(vec![pair("n", "0")])),
            ]
        );
        assert_eq!(merge.clauses[2].condition.as_deref(), Some("s.id > 3"));
    }

    #[test]
    fn says_what_is_wrong() {
        let code = |text: &str| merge(text).unwrap_err().code;
        assert_eq!(code("MERGE INTO t USING s ON t.a = s.a"), Code::Syntax);
        assert_eq!(code("MERGE INTO t USING (SELECT 1) ON true WHEN MATCHED THEN DELETE"), Code::Syntax);
        assert_eq!(code("MERGE INTO t USING s ON t.a = s.a WHEN NOT MATCHED THEN DELETE"), Code::Syntax);
        assert_eq!(
            code("MERGE INTO t USING t ON t.a = t.a WHEN MATCHED THEN DELETE"),
            Code::InvalidStatement
        );
    }
}
