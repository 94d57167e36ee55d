//! From a parsed query to a logical plan.

use crate::functions::{Macros, RewriteFor, inline, rewrite_versions, rewrite_windows};
use datafusion::common::TableReference;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// Plans a query over tables as they are now. The only way from a batch query's syntax to a plan, so that
/// window functions and functions written in SQL are never forgotten.
pub async fn plan_query(state: &SessionState, mut query: Box<Query>) -> Result<LogicalPlan> {
    if let Some(macros) = state.config().get_extension::<Macros>() {
        inline(&mut query, &macros)?;
    }
    rewrite_windows(&mut query, RewriteFor::Batch)?;
    rewrite_versions(state, &mut query)?;
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(query)));
    state
        .statement_to_plan(statement)
        .await
        .map_err(|error| name_unknown_table(state, from_datafusion(error)))
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
