//! What a client wants to be run: SQL text or a Substrait plan. Both take the same way from here.

use super::connection::ClientSession;
use super::flight::no_transaction;
use crate::frontend::api::{Answer, Description, Frontend};
use arrow::array::RecordBatch;
use arrow_flight::sql::{
    ActionCreatePreparedSubstraitPlanRequest, CommandStatementQuery, CommandStatementSubstraitPlan,
    CommandStatementUpdate, SubstraitPlan,
};
use bytes::Bytes;
use tidemill_core::{Code, Error, Result};

#[derive(Clone, Debug)]
pub(super) enum Statement {
    Sql(String),
    /// An encoded `substrait.Plan`.
    Substrait(Bytes),
}

impl Statement {
    pub(super) async fn execute(
        &self,
        frontend: &dyn Frontend,
        session: &ClientSession,
        params: Option<RecordBatch>,
    ) -> Result<Answer> {
        let id = session.id().await?;
        match self {
            Self::Sql(sql) => frontend.execute(id, sql, params).await,
            Self::Substrait(plan) => frontend.execute_substrait(id, plan, params).await,
        }
    }

    pub(super) async fn describe(
        &self,
        frontend: &dyn Frontend,
        session: &ClientSession,
    ) -> Result<Description> {
        let id = session.id().await?;
        match self {
            Self::Sql(sql) => frontend.describe(id, sql).await,
            Self::Substrait(plan) => frontend.describe_substrait(id, plan).await,
        }
    }
}

fn plan(plan: Option<SubstraitPlan>, transaction: Option<&Bytes>) -> Result<Statement> {
    no_transaction(transaction)?;
    // The version beside the plan is only needed for plans that do not name their own.
    let plan = plan.ok_or_else(|| Error::new(Code::InvalidStatement, "the command has no Substrait plan"))?;
    Ok(Statement::Substrait(plan.plan))
}

impl TryFrom<CommandStatementQuery> for Statement {
    type Error = Error;

    fn try_from(command: CommandStatementQuery) -> Result<Self> {
        no_transaction(command.transaction_id.as_ref())?;
        Ok(Self::Sql(command.query))
    }
}

impl TryFrom<CommandStatementUpdate> for Statement {
    type Error = Error;

    fn try_from(command: CommandStatementUpdate) -> Result<Self> {
        no_transaction(command.transaction_id.as_ref())?;
        Ok(Self::Sql(command.query))
    }
}

impl TryFrom<CommandStatementSubstraitPlan> for Statement {
    type Error = Error;

    fn try_from(command: CommandStatementSubstraitPlan) -> Result<Self> {
        plan(command.plan, command.transaction_id.as_ref())
    }
}

impl TryFrom<ActionCreatePreparedSubstraitPlanRequest> for Statement {
    type Error = Error;

    fn try_from(request: ActionCreatePreparedSubstraitPlanRequest) -> Result<Self> {
        plan(request.plan, request.transaction_id.as_ref())
    }
}
