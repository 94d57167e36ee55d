//! Parameters of statements: which ones a plan has, and how rows of values are put in their place.
//!
//! Several rows make *one* plan: `INSERT … VALUES ($1, $2)` bound to a thousand rows is one write of a
//! thousand rows, hence one commit, and a query is the union of its runs.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{DmlStatement, Expr, LogicalPlan, LogicalPlanBuilder, Values, WriteOp};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::borrow::Cow;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// Numbers `?` placeholders from left to right: `?, ?` becomes `$1, $2`.
pub fn number_placeholders(sql: &str) -> Result<Cow<'_, str>> {
    if !sql.contains('?') {
        return Ok(Cow::Borrowed(sql));
    }
    let mut tokenizer = Tokenizer::new(&GenericDialect {}, sql).with_unescape(false);
    let tokens = tokenizer.tokenize().map_err(|error| Error::new(Code::Syntax, error.to_string()))?;
    let mut number = 0;
    let mut text = String::with_capacity(sql.len() + 8);
    for token in tokens {
        match token {
            Token::Placeholder(name) if name == "?" => {
                number += 1;
                text.push_str(&format!("${number}"));
            }
            other => text.push_str(&other.to_string()),
        }
    }
    Ok(Cow::Owned(text))
}

/// One field for each parameter, in order; a type that planning could not find is `Null`.
pub fn parameters(plan: &LogicalPlan) -> Result<SchemaRef> {
    let types = plan.get_parameter_types().map_err(from_datafusion)?;
    let mut found = Vec::with_capacity(types.len());
    for (name, data_type) in types {
        let number = name.trim_start_matches('$').parse::<usize>().map_err(|_| {
            Error::new(Code::Unsupported, format!("the parameter `{name}` has a name"))
                .hint("parameters are written `?` or `$1`, `$2` …")
        })?;
        found.push((number, data_type));
    }
    let count = found.iter().map(|(number, _)| *number).max().unwrap_or(0);
    let mut fields: Vec<Field> =
        (1..=count).map(|number| Field::new(format!("${number}"), DataType::Null, true)).collect();
    for (number, data_type) in found {
        fields[number - 1] = Field::new(format!("${number}"), data_type.unwrap_or(DataType::Null), true);
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// Gives parameters that stand alone in the `VALUES` of an INSERT the types of the columns that they go to. JDBC
/// asks for the types before it binds, and takes an unknown one for NULL.
pub fn type_values(plan: LogicalPlan, targets: &[DataType]) -> Result<LogicalPlan> {
    let LogicalPlan::Values(mut values) = plan else { return Ok(plan) };
    let mut found = false;
    for row in &mut values.values {
        for (expr, target) in row.iter_mut().zip(targets) {
            let typed = std::mem::take(expr).transform_down(|expr| {
                let Expr::Placeholder(mut parameter) = expr else { return Ok(Transformed::no(expr)) };
                if parameter.field.as_ref().is_some_and(|field| !field.data_type().is_null()) {
                    return Ok(Transformed::no(Expr::Placeholder(parameter)));
                }
                parameter.field = Some(Arc::new(Field::new(&parameter.id, target.clone(), true)));
                Ok(Transformed::yes(Expr::Placeholder(parameter)))
            });
            let typed = typed.map_err(from_datafusion)?;
            found |= typed.transformed;
            *expr = typed.data;
        }
    }
    if !found {
        return Ok(LogicalPlan::Values(values));
    }
    LogicalPlanBuilder::values(values.values).and_then(LogicalPlanBuilder::build).map_err(from_datafusion)
}

/// The plan with every row of `params` in the place of its parameters. Columns are taken by position and cast
/// to the types that planning found.
pub fn bind(plan: LogicalPlan, params: &RecordBatch) -> Result<LogicalPlan> {
    let expected = parameters(&plan)?;
    if expected.fields().len() != params.num_columns() {
        let message = format!(
            "the statement has {} parameters, {} are given",
            expected.fields().len(),
            params.num_columns()
        );
        return Err(Error::new(Code::InvalidStatement, message));
    }
    if expected.fields().is_empty() {
        return Ok(plan);
    }
    let columns = columns(params, &expected)?;
    match (params.num_rows(), plan) {
        (0, _) => Err(Error::new(Code::InvalidStatement, "no row of parameters is given")),
        (1, plan) => substitute(plan, &columns, 0),
        (rows, LogicalPlan::Dml(write)) if matches!(write.op, WriteOp::Insert(_)) => {
            let input = bind_rows(write.input.as_ref().clone(), &columns, rows)?;
            let DmlStatement { table_name, target, op, .. } = write;
            Ok(LogicalPlan::Dml(DmlStatement::new(table_name, target, op, Arc::new(input))))
        }
        (rows, plan @ (LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Statement(_))) => {
            let message = format!("{rows} rows of parameters for a {} statement", plan.display());
            Err(Error::new(Code::Unsupported, message).hint("queries and INSERT take several rows; give one"))
        }
        (rows, plan) => bind_rows(plan, &columns, rows),
    }
}

/// The same for one of several plans of a statement, which need not have all of its parameters.
pub fn bind_some(plan: LogicalPlan, params: &RecordBatch) -> Result<LogicalPlan> {
    let expected = parameters(&plan)?;
    if expected.fields().is_empty() {
        return Ok(plan);
    }
    substitute(plan, &columns(params, &expected)?, 0)
}

fn columns(params: &RecordBatch, expected: &Schema) -> Result<Vec<ArrayRef>> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let pairs = params.columns().iter().zip(expected.fields());
    pairs
        .map(|(column, field)| match field.data_type() {
            DataType::Null => Ok(Arc::clone(column)),
            wanted if wanted == column.data_type() => Ok(Arc::clone(column)),
            wanted => cast_with_options(column, wanted, &strict).map_err(|error| {
                let message = format!("parameter {} must be a {wanted}: {error}", field.name());
                Error::new(Code::TypeMismatch, message)
            }),
        })
        .collect()
}

fn bind_rows(plan: LogicalPlan, columns: &[ArrayRef], rows: usize) -> Result<LogicalPlan> {
    if let Some(plan) = multiply_values(&plan, columns, rows)? {
        return Ok(plan);
    }
    let mut union = LogicalPlanBuilder::from(substitute(plan.clone(), columns, 0)?);
    for row in 1..rows {
        let next = substitute(plan.clone(), columns, row)?;
        union = union.union(next).map_err(from_datafusion)?;
    }
    union.build().map_err(from_datafusion)
}

/// When `VALUES` is the only place with parameters, it takes all rows: planning stays flat.
fn multiply_values(plan: &LogicalPlan, columns: &[ArrayRef], rows: usize) -> Result<Option<LogicalPlan>> {
    let mut nodes_with_parameters = 0;
    plan.apply_with_subqueries(|node| {
        let used = node.expressions().iter().any(has_parameter);
        if used {
            nodes_with_parameters += if matches!(node, LogicalPlan::Values(_)) { 1 } else { 2 };
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    if nodes_with_parameters != 1 {
        return Ok(None);
    }
    let grown = plan.clone().transform_down(|node| match node {
        LogicalPlan::Values(values) if values.values.iter().flatten().any(has_parameter) => {
            let mut all = Vec::with_capacity(values.values.len() * rows);
            for row in 0..rows {
                let one = LogicalPlan::Values(Values {
                    schema: Arc::clone(&values.schema),
                    values: values.values.clone(),
                });
                let bound = one.replace_params_with_values(&scalars(columns, row)?)?;
                if let LogicalPlan::Values(bound) = bound {
                    all.extend(bound.values);
                }
            }
            Ok(Transformed::yes(typed(Values { schema: values.schema, values: all })?))
        }
        other => Ok(Transformed::no(other)),
    });
    retype(grown.map_err(from_datafusion)?.data).map(Some)
}

/// `VALUES` in which a column had no type but that of its parameters.
fn typed(values: Values) -> datafusion::common::Result<LogicalPlan> {
    let known = values.schema.fields().iter().all(|field| *field.data_type() != DataType::Null);
    match known {
        true => Ok(LogicalPlan::Values(values)),
        false => LogicalPlanBuilder::values(values.values)?.build(),
    }
}

/// The types of columns that are made of parameters are known only when these are bound.
fn retype(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|node| {
        let node = match node {
            LogicalPlan::Values(values) => typed(values)?,
            other => other.recompute_schema()?,
        };
        Ok(Transformed::yes(node))
    })
    .map(|bound| bound.data)
    .map_err(from_datafusion)
}

fn has_parameter(expr: &Expr) -> bool {
    expr.exists(|part| Ok(matches!(part, Expr::Placeholder(_)))).unwrap_or(false)
}

fn substitute(plan: LogicalPlan, columns: &[ArrayRef], row: usize) -> Result<LogicalPlan> {
    let values = scalars(columns, row).map_err(from_datafusion)?;
    retype(plan.replace_params_with_values(&values).map_err(from_datafusion)?)
}

fn scalars(columns: &[ArrayRef], row: usize) -> datafusion::common::Result<ParamValues> {
    let row: Result<Vec<_>, _> =
        columns.iter().map(|column| ScalarValue::try_from_array(column, row)).collect();
    Ok(ParamValues::from(row?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray, UInt64Array};
    use datafusion::prelude::SessionContext;

    async fn plan(context: &SessionContext, sql: &str) -> LogicalPlan {
        context.state().create_logical_plan(sql).await.unwrap()
    }

    fn two_rows() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("one"), None]));
        RecordBatch::try_from_iter_with_nullable([("0", numbers, true), ("1", words, true)]).unwrap()
    }

    #[test]
    fn question_marks_are_numbered_outside_of_strings_and_comments() {
        let sql = "SELECT '?', \"a?\", ? -- really?\n, ? /* ? */";
        assert_eq!(number_placeholders(sql).unwrap(), "SELECT '?', \"a?\", $1 -- really?\n, $2 /* ? */");
        assert_eq!(number_placeholders("SELECT 'it''s \\?' , ?").unwrap(), "SELECT 'it''s \\?' , $1");
    }

    #[tokio::test]
    async fn an_insert_of_many_rows_is_one_write() {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t (n INT, w VARCHAR)").await.unwrap();
        let plan = plan(&context, "INSERT INTO t (w, n) VALUES ($2, $1)").await;
        let types: Vec<_> =
            parameters(&plan).unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types[0], DataType::Int32);
        let written = context.execute_logical_plan(bind(plan, &two_rows()).unwrap()).await.unwrap();
        let counts = written.collect().await.unwrap();
        let count = counts[0].column(0).as_any().downcast_ref::<UInt64Array>().unwrap().value(0);
        assert_eq!(count, 2);
        let rows = context.sql("SELECT n, w FROM t ORDER BY n").await.unwrap().collect().await.unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        assert_eq!(text.lines().nth(3), Some("| 1 | one |"));
        assert_eq!(text.lines().nth(4), Some("| 2 |     |"));
    }

    #[tokio::test]
    async fn parameters_of_values_take_the_types_of_their_columns() {
        let context = SessionContext::new();
        let values = plan(&context, "VALUES ($1, $2), (7, $3)").await;
        let typed = type_values(values, &[DataType::Int64, DataType::Utf8]).unwrap();
        let types: Vec<_> =
            parameters(&typed).unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Int64, DataType::Utf8, DataType::Utf8]);
        let query = plan(&context, "SELECT $1").await;
        assert_eq!(type_values(query.clone(), &[DataType::Int64]).unwrap(), query);
    }

    #[tokio::test]
    async fn values_without_a_type_of_their_own_take_that_of_the_parameters() {
        let context = SessionContext::new();
        for rows in [1, 2] {
            let plan =
                plan(&context, "SELECT CAST(column1 AS INT) AS n, column2 AS w FROM (VALUES ($1, $2))").await;
            let bound = bind(plan, &two_rows().slice(0, rows)).unwrap();
            let batches = context.execute_logical_plan(bound).await.unwrap().collect().await.unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
            assert_eq!(batches[0].schema().field(1).data_type(), &DataType::Utf8);
        }
    }

    #[tokio::test]
    async fn a_query_of_many_rows_is_a_union() {
        let context = SessionContext::new();
        let plan = plan(&context, "SELECT $1 + 1 AS next, $2 AS word").await;
        let rows = context.execute_logical_plan(bind(plan, &two_rows()).unwrap()).await.unwrap();
        let rows = rows.sort_by(vec![datafusion::prelude::col("next")]).unwrap().collect().await.unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        assert!(text.contains("| 2    | one  |") && text.contains("| 3    |      |"), "{text}");
    }

    #[tokio::test]
    async fn wrong_numbers_and_types_are_told() {
        let context = SessionContext::new();
        context.sql("CREATE TABLE t (n INT)").await.unwrap();
        let one = plan(&context, "SELECT * FROM t WHERE n > $1").await;
        let error = bind(one.clone(), &two_rows()).unwrap_err();
        assert_eq!(error.message, "the statement has 1 parameters, 2 are given");
        let words: ArrayRef = Arc::new(StringArray::from(vec!["many"]));
        let error = bind(one, &RecordBatch::try_from_iter([("0", words)]).unwrap()).unwrap_err();
        assert_eq!(error.code, Code::TypeMismatch);
        assert!(error.message.starts_with("parameter $1 must be a Int32"), "{error}");
    }
}
