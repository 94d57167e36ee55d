//! Runs a load's query for one interval, into the sink's writers.

use super::answers::new_job;
use crate::engines::{EngineChoice, Engines};
use crate::frontend::query::{Planned, plan_for};
use crate::loads::{Interval, LoadSpec, RunQuery};
use async_trait::async_trait;
use datafusion::execution::SessionState;
use std::sync::Arc;
use tidemill_core::{ConnectorRegistry, Result, WriteScope, Written};
use tidemill_engine::exec::{WriteExec, WriteSpec, collect_written};
use tidemill_engine::{JobKind, JobSpec};
use tidemill_sql::statement::LoadDef;
use tidemill_sql::{dialect, plan_query};

#[derive(Debug)]
pub(super) struct LoadQuery {
    pub(super) session: SessionState,
    pub(super) engines: Arc<Engines>,
    pub(super) connectors: ConnectorRegistry,
}

#[async_trait]
impl RunQuery for LoadQuery {
    async fn stage(&self, spec: &LoadSpec, interval: &Interval, scope: &WriteScope) -> Result<Vec<Written>> {
        let query = dialect::parse_query(&spec.query)?;
        let plan = plan_query(&self.session, query).await?;
        let plan = LoadDef::bind(plan, interval.from, interval.to)?;
        let Planned { plan, engine, .. } =
            plan_for(&self.engines, EngineChoice::Auto, &self.session, &plan).await?;
        self.connectors.sink(&spec.sink)?.prepare(&plan.schema()).await?;
        let write = WriteSpec { sink: spec.sink.clone(), scope: scope.clone() };
        let plan = Arc::new(WriteExec::new(Arc::new(write), plan));
        let title = format!("load {} from {} to {}", spec.name, interval.from, interval.to);
        let job = JobSpec { id: new_job(), kind: JobKind::Load, title };
        let running = engine.execute(job, plan, self.session.task_ctx()).await?;
        collect_written(running.stream).await
    }
}
