//! The columns of CREATE TABLE, with what else is said of them and between them.
//!
//! ```sql
//! (a BIGINT NOT NULL CHECK (a > 0) COMMENT 'a number', b INT GENERATED ALWAYS AS (a + 1),
//!  CONSTRAINT small CHECK (a < 100))
//! ```

use super::alter::stored;
use crate::dialect::{Cursor, column_schema, normalize};
use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::{ColumnDef, ColumnOption, Expr, GeneratedExpressionMode};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::collections::BTreeMap;
use tidemill_core::{Code, Error, Result};

const ALLOWED: &str = "NULL, NOT NULL, CHECK (…), GENERATED ALWAYS AS (…) and COMMENT '…'";

pub(super) struct TableColumns {
    pub(super) schema: Schema,
    pub(super) comments: BTreeMap<String, String>,
    /// Expressions by column, as the log keeps them.
    pub(super) generated: BTreeMap<String, String>,
    /// Conditions by name, likewise.
    pub(super) constraints: BTreeMap<String, String>,
}

enum Item {
    Column(Box<ColumnDef>),
    Check(Option<String>, Box<Expr>),
}

/// Begins at the parenthesis. `table` names constraints that have no name.
pub(super) fn parse(cursor: &mut Cursor<'_>, table: &str) -> Result<TableColumns> {
    let (mut columns, mut checks) = (Vec::new(), Vec::new());
    let (mut comments, mut generated) = (BTreeMap::new(), BTreeMap::new());
    for item in cursor.list(item)? {
        let mut column = match item {
            Item::Column(column) => *column,
            Item::Check(name, condition) => {
                checks.push((name, format!("{table}_check"), *condition));
                continue;
            }
        };
        let name = normalize(column.name.clone());
        for option in std::mem::take(&mut column.options) {
            match option.option {
                ColumnOption::Null | ColumnOption::NotNull => column.options.push(option),
                ColumnOption::Comment(text) => {
                    comments.insert(name.clone(), text);
                }
                ColumnOption::Check(check) if check.enforced != Some(false) => {
                    let given = option.name.or(check.name).map(normalize);
                    checks.push((given, format!("{table}_{name}_check"), *check.expr));
                }
                ColumnOption::Generated { generation_expr: Some(expr), generation_expr_mode, .. }
                    if generation_expr_mode != Some(GeneratedExpressionMode::Virtual) =>
                {
                    generated.insert(name.clone(), stored(expr));
                }
                ColumnOption::Generated { sequence_options: Some(_), .. } | ColumnOption::Identity(_) => {
                    let message = format!("column `{name}`: identity columns are not written");
                    return Err(Error::new(Code::Unsupported, message)
                        .hint("fill it with row_number() OVER () + (SELECT max(it) FROM the table)"));
                }
                ColumnOption::Default(_) => {
                    let message =
                        format!("column `{name}`: DEFAULT needs the table feature allowColumnDefaults");
                    return Err(Error::new(Code::Unsupported, message).hint(format!(
                        "columns that an INSERT leaves out are NULL; behind a type may stand {ALLOWED}"
                    )));
                }
                other => {
                    let message = format!("column `{name}`: `{other}` is not supported");
                    return Err(Error::new(Code::Unsupported, message).hint(ALLOWED));
                }
            }
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(Error::new(Code::InvalidStatement, "a table needs a column"));
    }
    Ok(TableColumns { schema: column_schema(columns)?, comments, generated, constraints: named(checks)? })
}

fn item(cursor: &mut Cursor<'_>) -> Result<Item> {
    let name = if cursor.take(&["CONSTRAINT"]) { Some(cursor.ident()?) } else { None };
    let words = (cursor.word_at(0), cursor.word_at(1));
    match (words.0.as_deref(), words.1.as_deref()) {
        (Some("PRIMARY" | "FOREIGN"), Some("KEY")) => Err(keys()),
        (Some("UNIQUE"), _) if name.is_some() || cursor.is_at(1, &Token::LParen) => Err(keys()),
        (Some("CHECK"), _) if name.is_some() || cursor.is_at(1, &Token::LParen) => {
            cursor.expect(&["CHECK"])?;
            cursor.expect_token(&Token::LParen)?;
            let condition = cursor.expr()?;
            cursor.expect_token(&Token::RParen)?;
            Ok(Item::Check(name, Box::new(condition)))
        }
        _ if name.is_some() => Err(cursor.expected("`CHECK`")),
        _ => cursor.column().map(|column| Item::Column(Box::new(column))),
    }
}

fn keys() -> Error {
    Error::new(Code::Unsupported, "keys are not kept")
        .hint("CHECK and NOT NULL are; MERGE INTO keeps rows apart by a key")
}

/// The log knows constraints by their names, whatever the case.
fn named(checks: Vec<(Option<String>, String, Expr)>) -> Result<BTreeMap<String, String>> {
    let mut named = BTreeMap::new();
    let (given, unnamed): (Vec<_>, Vec<_>) = checks.into_iter().partition(|(name, ..)| name.is_some());
    for (name, _, condition) in given {
        let name = name.unwrap_or_default().to_lowercase();
        if named.insert(name.clone(), stored(condition)).is_some() {
            return Err(Error::new(Code::InvalidStatement, format!("two constraints are named `{name}`"))
                .hint("give each a name of its own, or none"));
        }
    }
    for (_, base, condition) in unnamed {
        let base = base.to_lowercase();
        let mut name = base.clone();
        let mut number = 1;
        while named.contains_key(&name) {
            name = format!("{base}{number}");
            number += 1;
        }
        named.insert(name, stored(condition));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Result<TableColumns> {
        parse(&mut Cursor::new(text)?, "t")
    }

    #[test]
    fn keeps_what_is_said_of_columns_and_between_them() {
        let read = columns(
            "(a BIGINT NOT NULL CHECK (a > 0) COMMENT 'it''s', \"B\" INT GENERATED ALWAYS AS (a + 1), \
              CHECK (a < 9), check INT CHECK (check <> 1) CHECK (check <> 2), \
              CONSTRAINT Named CHECK (\"B\" > 1), day DATE CONSTRAINT d CHECK (day IS NOT NULL))",
        )
        .unwrap();
        let names: Vec<_> = read.schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["a", "B", "check", "day"]);
        assert!(!read.schema.field(0).is_nullable());
        assert_eq!(read.comments, [("a".to_owned(), "it's".to_owned())].into());
        assert_eq!(read.generated, [("B".to_owned(), "a + 1".to_owned())].into());
        let constraints: Vec<_> =
            read.constraints.iter().map(|(name, text)| format!("{name}: {text}")).collect();
        assert_eq!(
            constraints,
            [
                "d: day IS NOT NULL",
                "named: `B` > 1",
                "t_a_check: a > 0",
                "t_check: a < 9",
                "t_check_check: check <> 1",
                "t_check_check1: check <> 2",
            ]
        );
    }

    #[test]
    fn refuses_by_name_what_nobody_keeps() {
        for (text, word) in [
            ("(a INT DEFAULT 5)", "allowColumnDefaults"),
            ("(a BIGINT GENERATED ALWAYS AS IDENTITY (START WITH 1))", "identity"),
            ("(a INT, b INT GENERATED ALWAYS AS (a) VIRTUAL)", "VIRTUAL"),
            ("(a INT PRIMARY KEY)", "PRIMARY KEY"),
            ("(a INT, CONSTRAINT k PRIMARY KEY (a))", "keys"),
            ("(a INT, UNIQUE (a))", "keys"),
        ] {
            let Err(error) = columns(text) else { panic!("{text} was taken") };
            assert_eq!(error.code, Code::Unsupported, "{text}");
            assert!(error.message.contains(word) && error.hint.is_some(), "{text}: {error}");
        }
        for text in ["(CHECK (1 > 0))", "(a INT, CONSTRAINT c CHECK (a > 0), CONSTRAINT C CHECK (a > 1))"] {
            assert_eq!(columns(text).err().map(|error| error.code), Some(Code::InvalidStatement), "{text}");
        }
    }
}
