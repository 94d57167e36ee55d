//! Runs a load's query for one interval, into the sink's writers: a job like any other, of a user of its own.

use super::answers::{count_schema, counting};
use super::drive::{Launch, Try};
use super::query::{Runner, plan_for};
use super::session::Session;
use crate::engines::EngineChoice;
use crate::loads::{Interval, LoadSpec, RunQuery};
use async_trait::async_trait;
use datafusion::execution::SessionState;
use futures::TryStreamExt;
use parking_lot::Mutex;
use std::sync::Arc;
use tidemill_core::{Result, WriteScope, Written};
use tidemill_engine::exec::{WriteExec, WriteSpec, collect_written};
use tidemill_engine::{Execution, JobKind, JobSpec, from_datafusion};
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
        let mut state = self.session.clone();
        state.mark_start_execution();
        let session = Session::new(LOADS, state, None);
        let plan = plan_query(&session.state, query).await?;
        let plan = LoadDef::bind(plan, interval.from, interval.to)?;
        let planned = plan_for(&self.runner.engines, EngineChoice::Auto, &session.state, &plan).await?;
        self.runner.connectors.sink(&spec.sink)?.prepare(&planned.plan.schema()).await?;
        let title = format!("load {} from {} to {}", spec.name, interval.from, interval.to);
        let staged = Arc::new(Mutex::new(Vec::new()));
        let launch = launch(spec, scope, &title, staged.clone());
        let driver = self.runner.job(&session, &title, plan, planned, launch).never_refused();
        let _count: Vec<_> = driver.stream(count_schema()).try_collect().await.map_err(from_datafusion)?;
        Ok(std::mem::take(&mut *staged.lock()))
    }
}

/// A try writes files of its own, and puts into `staged` what it wrote.
fn launch(spec: &LoadSpec, scope: &WriteScope, title: &str, staged: Arc<Mutex<Vec<Written>>>) -> Launch {
    let (sink, scope, title) = (spec.sink.clone(), scope.clone(), title.to_owned());
    Box::new(move |Try { planned, job, number, context }| {
        let scope = WriteScope { task: format!("{}-{number}", scope.task), ..scope.clone() };
        let spec = Arc::new(WriteSpec { sink: sink.clone(), scope, tally: None });
        let plan = Arc::new(WriteExec::new(spec, planned.plan));
        let job = JobSpec { id: job, kind: JobKind::Load, title: title.clone() };
        let staged = staged.clone();
        Box::pin(async move {
            let running = planned.engine.execute(job, plan, context).await?;
            let written = running.stream;
            let stream = counting(async move {
                let written = collect_written(written).await?;
                let rows = written.iter().map(|written| written.rows).sum();
                *staged.lock() = written;
                Ok(rows)
            });
            Ok(Execution { stream, ..running })
        })
    })
}
