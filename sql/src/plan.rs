//! From a parsed query to a logical plan.

use crate::functions::{RewriteFor, rewrite_windows};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement};
use tidemill_core::Result;
use tidemill_engine::from_datafusion;

/// Plans a query over tables as they are now. The only way from a batch query's syntax to a plan, so that
/// window functions are never forgotten.
pub async fn plan_query(state: &SessionState, mut query: Box<Query>) -> Result<LogicalPlan> {
    rewrite_windows(&mut query, RewriteFor::Batch)?;
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(query)));
    state.statement_to_plan(statement).await.map_err(from_datafusion)
}
