//! `ALTER TABLE t …`: changes of what a table is.
//!
//! ```sql
//! ALTER TABLE t ADD COLUMN[S] [(] name type, … [)]
//! ALTER TABLE t ADD CONSTRAINT name CHECK (condition)   ·  DROP CONSTRAINT [IF EXISTS] name
//! ALTER TABLE t SET TBLPROPERTIES ('key' = 'value', …)  ·  UNSET TBLPROPERTIES [IF EXISTS] ('key', …)
//! ALTER TABLE t ALTER [COLUMN] name {SET | DROP} NOT NULL  ·  COMMENT 'text'
//! ```

use crate::TableName;
use crate::dialect::{Cursor, column_schema};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::sql::sqlparser::ast::{ColumnDef, Expr, Ident, visit_expressions_mut};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug, PartialEq)]
pub struct AlterTable {
    pub table: TableName,
    pub action: AlterAction,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AlterAction {
    AddColumns(SchemaRef),
    AddConstraint { name: String, condition: String },
    DropConstraint { name: String, if_exists: bool },
    SetProperties(BTreeMap<String, String>),
    UnsetProperties { keys: Vec<String>, if_exists: bool },
    SetNotNull(String),
    DropNotNull(String),
    SetType { column: String, data_type: DataType },
    CommentColumn { column: String, comment: String },
}

/// Begins behind `ALTER`.
pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<AlterTable> {
    cursor.expect(&["TABLE"])?;
    let table = cursor.table_name(default_schema)?;
    let action = match cursor
        .one_of(&["ADD", "DROP", "SET", "UNSET", "ALTER", "RENAME", "CHANGE", "REPLACE"])?
    {
        "ADD" => match cursor.take(&["CONSTRAINT"]) {
            true => {
                let name = cursor.ident()?;
                cursor.expect(&["CHECK"])?;
                cursor.expect_token(&Token::LParen)?;
                let condition = stored(cursor.expr()?);
                cursor.expect_token(&Token::RParen)?;
                AlterAction::AddConstraint { name, condition }
            }
            false => {
                cursor.one_of(&["COLUMN", "COLUMNS"])?;
                AlterAction::AddColumns(Arc::new(column_schema(columns(cursor)?)?))
            }
        },
        "DROP" => {
            if cursor.one_of(&["CONSTRAINT", "COLUMN", "COLUMNS"])? != "CONSTRAINT" {
                return Err(Error::new(Code::Unsupported, "DROP COLUMN needs column mapping")
                    .hint("CREATE TABLE another AS SELECT the columns to keep, or a view of them"));
            }
            let if_exists = cursor.take(&["IF", "EXISTS"]);
            AlterAction::DropConstraint { name: cursor.ident()?, if_exists }
        }
        "SET" => {
            cursor.expect(&["TBLPROPERTIES"])?;
            AlterAction::SetProperties(cursor.options()?)
        }
        "UNSET" => {
            cursor.expect(&["TBLPROPERTIES"])?;
            let if_exists = cursor.take(&["IF", "EXISTS"]);
            AlterAction::UnsetProperties { keys: cursor.list(Cursor::string)?, if_exists }
        }
        "RENAME" => {
            return Err(Error::new(Code::Unsupported, "ALTER TABLE … RENAME")
                .hint("CREATE TABLE another AS SELECT …, or a view with the new names"));
        }
        "CHANGE" => {
            return Err(Error::new(Code::Unsupported, "ALTER TABLE … CHANGE COLUMN")
                .hint("ALTER COLUMN name {SET | DROP} NOT NULL, ALTER COLUMN name COMMENT '…'"));
        }
        "REPLACE" => {
            return Err(Error::new(Code::Unsupported, "ALTER TABLE … REPLACE COLUMNS")
                .hint("CREATE TABLE another AS SELECT the columns to keep, or a view of them"));
        }
        _ => {
            cursor.take(&["COLUMN"]);
            let column = cursor.ident()?;
            match cursor.one_of(&["SET", "DROP", "TYPE", "COMMENT"])? {
                "TYPE" => set_type(cursor, column)?,
                "SET" if cursor.take(&["DATA", "TYPE"]) => set_type(cursor, column)?,
                "SET" | "DROP" if cursor.take(&["DEFAULT"]) => {
                    let message =
                        format!("ALTER COLUMN {column}: DEFAULT needs the table feature allowColumnDefaults");
                    return Err(Error::new(Code::Unsupported, message)
                        .hint("columns that an INSERT leaves out are NULL"));
                }
                "COMMENT" => AlterAction::CommentColumn { column, comment: cursor.string()? },
                "SET" => {
                    cursor.expect(&["NOT", "NULL"])?;
                    AlterAction::SetNotNull(column)
                }
                _ => {
                    cursor.expect(&["NOT", "NULL"])?;
                    AlterAction::DropNotNull(column)
                }
            }
        }
    };
    Ok(AlterTable { table, action })
}

fn set_type(cursor: &mut Cursor<'_>, column: String) -> Result<AlterAction> {
    let (name, data_type) = (Ident::with_quote('"', &column), cursor.data_type()?);
    let schema = column_schema(vec![ColumnDef { name, data_type, options: Vec::new() }])?;
    Ok(AlterAction::SetType { column, data_type: schema.field(0).data_type().clone() })
}

/// An expression as the log keeps it: in Spark, names are quoted by backticks.
pub(super) fn stored(mut expr: Expr) -> String {
    let quote = |ident: &mut Ident| {
        if ident.quote_style.is_some() {
            ident.quote_style = Some('`');
        }
    };
    let _ = visit_expressions_mut(&mut expr, |part| {
        match part {
            Expr::Identifier(ident) => quote(ident),
            Expr::CompoundIdentifier(idents) => idents.iter_mut().for_each(quote),
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    expr.to_string()
}

fn columns(cursor: &mut Cursor<'_>) -> Result<Vec<ColumnDef>> {
    if cursor.peek_is(&Token::LParen) {
        return cursor.list(Cursor::column);
    }
    let mut columns = vec![cursor.column()?];
    while cursor.take_token(&Token::Comma) {
        columns.push(cursor.column()?);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::TableChange;
    use crate::{Statement, parse};

    fn alter(text: &str) -> Result<AlterAction> {
        match parse(text, "public")? {
            Statement::Change(change) => match *change {
                TableChange::Alter(alter) => Ok(alter.action),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_each_action() {
        for text in ["ALTER TABLE t ADD COLUMN a INT, b DATE", "ALTER TABLE t ADD COLUMNS (a INT, b DATE)"] {
            let AlterAction::AddColumns(columns) = alter(text).unwrap() else { panic!("{text}") };
            assert_eq!(columns.fields().len(), 2);
        }
        let check = alter("ALTER TABLE t ADD CONSTRAINT priced CHECK (\"Price\" >= 0)").unwrap();
        let expected =
            AlterAction::AddConstraint { name: "priced".to_owned(), condition: "`Price` >= 0".to_owned() };
        assert_eq!(check, expected);
        let comment = AlterAction::CommentColumn { column: "a".to_owned(), comment: "it's".to_owned() };
        assert_eq!(alter("ALTER TABLE t ALTER COLUMN a COMMENT 'it''s'").unwrap(), comment);
        for text in
            ["ALTER TABLE t ALTER COLUMN \"A\" TYPE BIGINT", "ALTER TABLE t ALTER \"A\" SET DATA TYPE BIGINT"]
        {
            let wider = AlterAction::SetType { column: "A".to_owned(), data_type: DataType::Int64 };
            assert_eq!(alter(text).unwrap(), wider);
        }
        let set = alter("ALTER TABLE t SET TBLPROPERTIES ('delta.appendOnly' = 'true')").unwrap();
        assert_eq!(
            set,
            AlterAction::SetProperties([("delta.appendOnly".to_owned(), "true".to_owned())].into())
        );
    }

    #[test]
    fn what_would_change_files_is_refused_with_a_way_round_it() {
        for text in [
            "ALTER TABLE t DROP COLUMN a",
            "ALTER TABLE t DROP COLUMNS (a, b)",
            "ALTER TABLE t REPLACE COLUMNS (a INT)",
            "ALTER TABLE t RENAME COLUMN a TO b",
        ] {
            let error = alter(text).unwrap_err();
            assert_eq!(error.code, Code::Unsupported, "{text}");
            let hint = error.hint.unwrap();
            assert!(hint.starts_with("CREATE TABLE another AS SELECT") && hint.contains("view"), "{hint}");
        }
        let error = alter("ALTER TABLE t CHANGE COLUMN a b INT").unwrap_err();
        assert!(error.hint.unwrap().contains("ALTER COLUMN name COMMENT"));
        let error = alter("ALTER TABLE t ALTER COLUMN a SET DEFAULT 1").unwrap_err();
        assert!(error.message.contains("allowColumnDefaults"), "{error}");
    }
}
