//! Plans a DataFrame by sending it away whole.

use crate::exec::RemoteExec;
use crate::flight::Flight;
use crate::producer::to_substrait;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct RemotePlanner {
    flight: Flight,
}

impl RemotePlanner {
    pub(crate) fn new(flight: Flight) -> Self {
        Self { flight }
    }
}

#[async_trait]
impl QueryPlanner for RemotePlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        _: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(RemoteExec::new(self.flight.clone(), to_substrait(plan)?, plan.schema().inner())))
    }
}
