//! Runs a load's query for one interval, into the sink's writers.

use super::answers::new_job;
use super::cost;
use super::query::{Planned, Runner, plan_for};
use crate::admission::{Priority, Request};
use crate::engines::EngineChoice;
use crate::loads::{Interval, LoadSpec, RunQuery};
use async_trait::async_trait;
use datafusion::execution::SessionState;
use std::sync::Arc;
use tidemill_core::{Result, WriteScope, Written};
use tidemill_engine::exec::{WriteExec, WriteSpec, collect_written};
use tidemill_engine::{JobKind, JobSpec};
use tidemill_sql::statement::LoadDef;
use tidemill_sql::{dialect, plan_query};

/// As whom loads wait for their turn.
const LOADS: &str = "loads";

#[derive(Debug)]
pub(super) struct LoadQuery {
    pub(super) session: SessionState,
    pub(super) runner: Runner,
}

#[async_trait]
impl RunQuery for LoadQuery {
    async fn stage(&self, spec: &LoadSpec, interval: &Interval, scope: &WriteScope) -> Result<Vec<Written>> {
        let query = dialect::parse_query(&spec.query)?;
        let mut session = self.session.clone();
        session.mark_start_execution();
        let plan = plan_query(&session, query).await?;
        let plan = LoadDef::bind(plan, interval.from, interval.to)?;
        let Planned { plan, engine, .. } =
            plan_for(&self.runner.engines, EngineChoice::Auto, &session, &plan).await?;
        // Loads take turns with the users, as one of them.
        let lane = cost::of(&plan, self.runner.heavy_from).lane;
        let request = Request { user: LOADS.to_owned(), lane, priority: Priority::Normal, again: true };
        let _permit = self.runner.gate.enter(&request).await?;
        self.runner.connectors.sink(&spec.sink)?.prepare(&plan.schema()).await?;
        let write = WriteSpec { sink: spec.sink.clone(), scope: scope.clone(), tally: None };
        let plan = Arc::new(WriteExec::new(Arc::new(write), plan));
        let title = format!("load {} from {} to {}", spec.name, interval.from, interval.to);
        let job = JobSpec { id: new_job(), kind: JobKind::Load, title };
        let running = engine.execute(job, plan, session.task_ctx()).await?;
        collect_written(running.stream).await
    }
}
