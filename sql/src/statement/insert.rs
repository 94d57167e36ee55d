//! `INSERT INTO t [(columns) | BY NAME] query`, `INSERT OVERWRITE [TABLE] t …`, and `INSERT INTO t REPLACE WHERE
//! condition query`, which puts the query's rows in the place of those that pass the condition. BY NAME takes the
//! query's columns by their names, as Spark and DuckDB do. `DEFAULT` in VALUES is NULL, as no column has another.

use crate::TableName;
use crate::dialect::Cursor;
use arrow::compute::can_cast_types;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, Query, SelectItem, SetExpr, Value};
use datafusion::sql::sqlparser::tokenizer::Token;
use std::collections::BTreeSet;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    pub table: TableName,
    /// Empty means all of the table's columns in their order.
    pub columns: Vec<String>,
    /// The query names the columns that it fills.
    pub by_name: bool,
    pub query: Box<Query>,
    pub mode: InsertMode,
}

/// What happens to the rows that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsertMode {
    Append,
    /// All of them go.
    Overwrite,
    /// Those that pass the condition, SQL text, go; all new ones must pass it.
    ReplaceWhere(String),
}

pub(super) fn parse(cursor: &mut Cursor<'_>, default_schema: &str) -> Result<Insert> {
    cursor.expect(&["INSERT"])?;
    let overwrite = cursor.take(&["OVERWRITE"]);
    if !overwrite || cursor.word_at(0).as_deref() == Some("INTO") {
        cursor.expect(&["INTO"])?;
    }
    cursor.take(&["TABLE"]);
    let table = cursor.table_name(default_schema)?;
    // `INSERT INTO t (SELECT …)` has no column list.
    let has_columns = cursor.peek_is(&Token::LParen)
        && !matches!(cursor.word_at(1).as_deref(), Some("SELECT" | "VALUES" | "WITH"));
    let columns = if has_columns { cursor.idents_in_parentheses()? } else { Vec::new() };
    let by_name = cursor.take(&["BY", "NAME"]);
    if by_name && has_columns {
        return Err(Error::new(Code::InvalidStatement, "BY NAME and a list of columns exclude each other")
            .hint("the names of the query's columns say where they go; name them with AS"));
    }
    let mode = match overwrite {
        true => InsertMode::Overwrite,
        false if cursor.take(&["REPLACE", "WHERE"]) => InsertMode::ReplaceWhere(cursor.expr()?.to_string()),
        false => InsertMode::Append,
    };
    let mut query = cursor.query()?;
    if !by_name {
        name_repeated(&mut query.body);
    }
    null_defaults(&mut query.body);
    Ok(Insert { table, columns, by_name, query, mode })
}

fn null_defaults(body: &mut SetExpr) {
    let SetExpr::Values(values) = body else { return };
    for expr in values.rows.iter_mut().flat_map(|row| row.content.iter_mut()) {
        if let SqlExpr::Identifier(ident) = expr
            && ident.quote_style.is_none()
            && ident.value.eq_ignore_ascii_case("DEFAULT")
        {
            *expr = SqlExpr::Value(Value::Null.into());
        }
    }
}

/// Gives an expression that stands in a SELECT for the second time a name of its own: the columns of a query must
/// differ in name, and those of an INSERT are taken by position.
fn name_repeated(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let mut before = BTreeSet::new();
            for (place, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !before.insert(expr.to_string())
                {
                    let alias = Ident::with_quote('"', format!("column{}", place + 1));
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_repeated(left);
            name_repeated(right);
        }
        SetExpr::Query(query) => name_repeated(&mut query.body),
        _ => {}
    }
}

impl Insert {
    /// The columns that the query's go to; none means all of the table's in their order.
    pub fn columns_for(&self, plan: &LogicalPlan) -> Vec<String> {
        match self.by_name {
            true => plan.schema().fields().iter().map(|field| field.name().clone()).collect(),
            false => self.columns.clone(),
        }
    }

    /// [`align`] for this statement.
    pub fn align(&self, plan: LogicalPlan, schema: &Schema) -> Result<LogicalPlan> {
        align(&self.table, &self.columns_for(&plan), plan, schema)
    }
}

/// Puts the query's columns, taken by position, under the table's: reordered, cast, and null where `columns`
/// names no value. No `columns` means all of them in their order.
pub fn align(
    table: &TableName,
    columns: &[String],
    plan: LogicalPlan,
    schema: &Schema,
) -> Result<LogicalPlan> {
    let targets = targets(table, columns, schema)?;
    let given = plan.schema().columns();
    if given.len() != targets.len() {
        let message =
            format!("INSERT has {} columns to fill, but the query gives {}", targets.len(), given.len());
        let names: Vec<&str> = targets.iter().map(|target| target.as_str()).collect();
        return Err(Error::new(Code::InvalidStatement, message)
            .hint(format!("the columns are: {}", names.join(", "))));
    }
    let project = |field: &FieldRef| {
        let name = field.name();
        let value = match targets.iter().position(|target| *target == name) {
            Some(position) => {
                let from = plan.schema().field(position).data_type();
                if !can_cast_types(from, field.data_type()) {
                    let message =
                        format!("INSERT: {from} does not fit `{name}`, which is {}", field.data_type());
                    return Err(Error::new(Code::TypeMismatch, message).hint("CAST it in the query"));
                }
                Expr::Column(given[position].clone())
            }
            None if field.is_nullable() => lit(ScalarValue::Null),
            None => {
                let message = format!("INSERT gives no value for `{name}`, which is NOT NULL");
                return Err(Error::new(Code::InvalidStatement, message));
            }
        };
        Ok(cast(value, field.data_type().clone()).alias(name))
    };
    let exprs = schema.fields().iter().map(project).collect::<Result<Vec<_>>>()?;
    let aligned = LogicalPlanBuilder::from(plan.clone()).project(exprs).and_then(|builder| builder.build());
    aligned.map_err(from_datafusion)
}

fn targets<'a>(table: &TableName, columns: &'a [String], schema: &'a Schema) -> Result<Vec<&'a String>> {
    if columns.is_empty() {
        return Ok(schema.fields().iter().map(|field| field.name()).collect());
    }
    for (n, column) in columns.iter().enumerate() {
        if schema.field_with_name(column).is_err() {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let message = format!("table `{table}` has no column `{column}`");
            return Err(Error::new(Code::UnknownColumn, message).suggest(column, names));
        }
        if columns[..n].contains(column) {
            let message = format!("INSERT names the column `{column}` twice");
            return Err(Error::new(Code::InvalidStatement, message));
        }
    }
    Ok(columns.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, parse, plan_query};
    use arrow::datatypes::{DataType, Field};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    async fn insert(text: &str) -> Result<String> {
        let table = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
            Field::new("price", DataType::Decimal128(10, 2), true),
        ]);
        let Statement::Insert(insert) = parse(text, "public")? else { panic!("{text}") };
        let context = SessionContext::new();
        let plan = insert.align(plan_query(&context.state(), insert.query.clone()).await?, &table)?;
        let names: Vec<&String> = plan.schema().fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, ["id", "name", "price"]);
        let batches = context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
        for (field, expected) in batches[0].schema().fields().iter().zip(table.fields()) {
            assert_eq!(field.data_type(), expected.data_type());
        }
        let text = pretty_format_batches(&batches).unwrap().to_string();
        Ok(text.lines().nth(3).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    #[tokio::test]
    async fn values_come_under_their_columns_by_position() {
        assert_eq!(insert("INSERT INTO t VALUES (1, 'a', 2.5)").await.unwrap(), "| 1 | a | 2.50 |");
        let reordered = "INSERT INTO t (price, id) SELECT 2 AS id, 7 AS price";
        assert_eq!(insert(reordered).await.unwrap(), "| 7 | | 2.00 |");
        let defaults = "INSERT INTO t VALUES (1, default, DEFAULT)";
        assert_eq!(insert(defaults).await.unwrap(), "| 1 | | |");
        let repeated = "INSERT INTO t SELECT 1, 'a', 1";
        assert_eq!(insert(repeated).await.unwrap(), "| 1 | a | 1.00 |");
    }

    #[tokio::test]
    async fn or_by_name() {
        let named = "INSERT INTO t BY NAME SELECT 2.5 AS price, 7 AS id";
        assert_eq!(insert(named).await.unwrap(), "| 7 | | 2.50 |");
        let overwrite = "INSERT OVERWRITE t BY NAME SELECT 'x' AS name, 7 AS id";
        assert_eq!(insert(overwrite).await.unwrap(), "| 7 | x | |");
        let error = insert("INSERT INTO t BY NAME SELECT 7 AS id, 1 AS prise").await.unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (Code::UnknownColumn, Some("did you mean `price`?")));
        let error = insert("INSERT INTO t BY NAME SELECT 1 AS price").await.unwrap_err();
        assert!(error.message.contains("no value for `id`"), "{error}");
        let both = insert("INSERT INTO t (id) BY NAME SELECT 1 AS id").await.unwrap_err();
        assert_eq!(both.code, Code::InvalidStatement);
    }

    #[tokio::test]
    async fn says_what_does_not_fit() {
        let code = async |text: &str| insert(text).await.unwrap_err().code;
        assert_eq!(code("INSERT INTO t VALUES (1, 'a')").await, Code::InvalidStatement);
        assert_eq!(code("INSERT INTO t (name) VALUES ('a')").await, Code::InvalidStatement, "id is NOT NULL");
        assert_eq!(code("INSERT INTO t (id, id) VALUES (1, 2)").await, Code::InvalidStatement);
        let error = insert("INSERT INTO t (id, nam) VALUES (1, 'a')").await.unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (Code::UnknownColumn, Some("did you mean `name`?")));
        assert_eq!(code("INSERT INTO t (id) SELECT [1, 2]").await, Code::TypeMismatch);
    }
}
