//! From a parsed query to a logical plan.

use crate::functions::{Macros, RewriteFor, inline, rewrite_everyday, rewrite_versions, rewrite_windows};
use datafusion::common::TableReference;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Expr, Query, SetExpr, Statement as SqlStatement, Value};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// Plans a query over tables as they are now. The only way from a batch query's syntax to a plan, so that
/// window functions and functions written in SQL are never forgotten.
pub async fn plan_query(state: &SessionState, mut query: Box<Query>) -> Result<LogicalPlan> {
    if let Some(macros) = state.config().get_extension::<Macros>() {
        inline(&mut query, &macros)?;
    }
    rewrite_everyday(&mut query)?;
    rewrite_windows(&mut query, RewriteFor::Batch)?;
    rewrite_versions(state, &mut query)?;
    let exact = as_they_are_written(state, &query);
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(query)));
    let plan = exact.as_ref().unwrap_or(state).statement_to_plan(statement).await;
    plan.map_err(|error| name_unknown_table(state, from_datafusion(error)))
}

/// The session in which rows of constants keep all their digits. In other queries a number with a point is a
/// DOUBLE: were it a DECIMAL, DataFusion would compare a DOUBLE with it as DECIMAL(30, 15), which holds no 1e15 and
/// no 1e-16, and make such a DECIMAL of `coalesce(double, 0.0)`.
fn as_they_are_written(state: &SessionState, query: &Query) -> Option<SessionState> {
    let SetExpr::Values(values) = query.body.as_ref() else { return None };
    if values.rows.iter().any(|row| row.iter().any(is_power)) {
        return None;
    }
    let mut exact = state.clone();
    exact.config_mut().options_mut().sql_parser.parse_float_as_decimal = true;
    Some(exact)
}

/// `1e300` is no decimal, and DataFusion would make one of negative scale of `1e9`.
fn is_power(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(&value.value, Value::Number(text, _) if text.contains(['e', 'E'])),
        Expr::UnaryOp { expr, .. } => is_power(expr),
        _ => false,
    }
}

/// Says of an unknown table which one may have been meant.
fn name_unknown_table(state: &SessionState, error: Error) -> Error {
    let name = error.message.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    let (Code::UnknownObject, Some(name)) = (error.code, name) else { return error };
    let TableReference::Full { catalog, schema, table } = TableReference::parse_str(name) else {
        return error;
    };
    let schema_provider = state.catalog_list().catalog(&catalog).and_then(|catalog| catalog.schema(&schema));
    let known = schema_provider.map(|schema| schema.table_names()).unwrap_or_default();
    Error::new(Code::UnknownObject, format!("no table `{schema}.{table}`"))
        .hint("SHOW TABLES lists what there is")
        .suggest(&table, known.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::parse_query;
    use arrow::datatypes::DataType;
    use datafusion::prelude::SessionContext;

    async fn first_type(sql: &str) -> DataType {
        let plan = plan_query(&SessionContext::new().state(), parse_query(sql).unwrap()).await.unwrap();
        plan.schema().field(0).data_type().clone()
    }

    #[tokio::test]
    async fn rows_of_constants_keep_all_their_digits() {
        let long = "VALUES (1234567890123456.7891)";
        assert_eq!(first_type(long).await, DataType::Decimal128(20, 4));
        assert_eq!(first_type("VALUES (-1e300), (2.5)").await, DataType::Float64);
        assert_eq!(first_type("SELECT 2.5").await, DataType::Float64);
    }
}
