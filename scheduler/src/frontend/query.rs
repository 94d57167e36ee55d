//! Queries, writes and EXPLAIN: plan, choose the engine, run.

use super::answers::{count_schema, counting};
use super::api::{Answer, AnswerKind};
use super::cost;
use super::drive::{Launch, Try};
use super::jobs::Jobs;
use super::session::Session;
use crate::admission::{Background, Gate, Lane};
use crate::engines::{EngineChoice, Engines, Traits};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::prelude::SessionConfig;
use futures::future::BoxFuture;
use std::sync::Arc;
use tidemill_core::{ConnectorRegistry, JobId, Result, SinkSpec, WriteScope, Written};
use tidemill_engine::exec::{SelectRowsExec, WriteExec, WriteSpec, collect_written};
use tidemill_engine::{Engine, EngineKind, Execution, JobKind, JobSpec, expected, from_datafusion, travel};

/// Makes visible what the tasks of a job wrote, all of it at once.
pub(super) type Commit = Arc<dyn Fn(JobId, Vec<Written>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Runs plans for sessions.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    pub(super) engines: Arc<Engines>,
    pub(super) gate: Arc<Gate>,
    /// Where heavy jobs run in this process.
    pub(super) background: Arc<Background>,
    pub(super) jobs: Jobs,
    pub(super) connectors: ConnectorRegistry,
    /// `jobs.heavy_from_bytes`.
    pub(super) heavy_from: u64,
    /// `jobs.local_below_bytes`.
    pub(super) local_below: u64,
    /// `jobs.memory_limit_bytes`.
    pub(super) memory_limit: usize,
}

impl Runner {
    /// The plan of a query. What reads little is run here: to share it out would take longer, and cost this
    /// process more.
    pub(super) async fn plan(&self, session: &Session, plan: &LogicalPlan) -> Result<Planned> {
        let planned = plan_for(&self.engines, session.engine, &session.state, plan).await?;
        let little = session.engine == EngineChoice::Auto
            && planned.engine.kind() == EngineKind::Pipelined
            && cost::of(&planned.plan, self.local_below).lane == Lane::Light;
        Ok(match little {
            true => {
                Planned { engine: self.engines.in_process(), reason: "it reads little".to_owned(), ..planned }
            }
            false => planned,
        })
    }

    pub(super) async fn query(&self, session: &Session, sql: &str, plan: LogicalPlan) -> Result<Answer> {
        let planned = self.plan(session, &plan).await?;
        let (engine, reason) = (Some(planned.engine.kind()), planned.reason.clone());
        let (schema, title) = (planned.plan.schema(), sql.to_owned());
        let launch: Launch = Box::new(move |Try { planned, job, context, .. }| {
            let job = JobSpec { id: job, kind: JobKind::Query, title: title.clone() };
            Box::pin(async move { planned.engine.execute(job, planned.plan, context).await })
        });
        let driver = self.job(session, sql, plan, planned, launch);
        let (id, progress) = (driver.id(), driver.watcher());
        let stream = driver.stream(schema.clone());
        Ok(Answer { job: id, kind: AnswerKind::Rows, schema, stream, progress, engine, reason })
    }

    /// Runs a plan into a sink: every task writes its own files, one commit makes all of them visible.
    pub(super) async fn write(
        &self,
        session: &Session,
        sql: &str,
        plan: LogicalPlan,
        sink: SinkSpec,
    ) -> Result<Answer> {
        let target = self.connectors.sink(&sink)?;
        let commit: Commit = Arc::new(move |id, written| {
            let target = target.clone();
            Box::pin(async move {
                if written.iter().any(|written| written.rows > 0) {
                    target.commit(id.as_str(), 1, &written).await?;
                }
                Ok(())
            })
        });
        self.write_and(session, sql, plan, sink, commit).await
    }

    /// [`Self::write`], with a commit of the caller's.
    pub(super) async fn write_and(
        &self,
        session: &Session,
        sql: &str,
        plan: LogicalPlan,
        sink: SinkSpec,
        commit: Commit,
    ) -> Result<Answer> {
        let planned = plan_for(&self.engines, session.engine, &session.state, &plan).await?;
        let (engine, reason) = (Some(planned.engine.kind()), planned.reason.clone());
        let title = sql.to_owned();
        let launch: Launch = Box::new(move |Try { planned, job: id, number, context }| {
            // Each try has files of its own; only those of the last one are committed.
            let (job, task) = (id.as_str().to_owned(), format!("{id}-{number}"));
            let scope = WriteScope { job, run: 1, task };
            let spec = Arc::new(WriteSpec { sink: sink.clone(), scope, tally: None });
            let plan = Arc::new(WriteExec::new(spec, planned.plan));
            let job = JobSpec { id: id.clone(), kind: JobKind::Write, title: title.clone() };
            let commit = commit.clone();
            Box::pin(async move {
                let running = planned.engine.execute(job, plan, context).await?;
                let written = running.stream;
                let stream = counting(async move {
                    let written = collect_written(written).await?;
                    let rows = written.iter().map(|written| written.rows).sum();
                    commit(id, written).await?;
                    Ok(rows)
                });
                Ok(Execution { stream, ..running })
            })
        });
        let driver = self.job(session, sql, plan, planned, launch);
        let schema = count_schema();
        let (id, progress) = (driver.id(), driver.watcher());
        let stream = driver.stream(schema.clone());
        Ok(Answer { job: id, kind: AnswerKind::Count, schema, stream, progress, engine, reason })
    }
}

/// A physical plan and the engine that takes it.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    pub(crate) engine: Arc<dyn Engine>,
    /// Why that engine.
    pub(crate) reason: String,
}

/// Plans for the likely engine, chooses by what the plan reads, and plans again if another one was chosen.
pub(crate) async fn plan_for(
    engines: &Engines,
    choice: EngineChoice,
    state: &SessionState,
    logical: &LogicalPlan,
) -> Result<Planned> {
    let likely = engines.likely(choice);
    let plan = physical(state, likely.planning(state.config(), None), logical).await?;
    let traits = traits(&plan);
    let (engine, reason) = engines.choose(choice, traits)?;
    if engine.kind() == likely.kind() {
        return Ok(Planned { plan, engine, reason });
    }
    let held = traits.bytes.map(|bytes| bytes - traits.largest);
    let plan = physical(state, engine.planning(state.config(), held), logical).await?;
    Ok(Planned { plan, engine, reason })
}

pub(crate) async fn physical(
    state: &SessionState,
    config: SessionConfig,
    plan: &LogicalPlan,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut state = state.clone();
    *state.config_mut() = config;
    state.create_physical_plan(plan).await.map_err(from_datafusion)
}

/// What the choice of the engine needs to know.
fn traits(plan: &Arc<dyn ExecutionPlan>) -> Traits {
    let mut reads_nothing = true;
    let mut local_only = None;
    let (mut bytes, mut largest) = (None, 0);
    let walked = plan.apply(|node| {
        if node.is::<LazyMemoryExec>() {
            local_only = Some("a generated series runs in this process");
        }
        local_only = travel::stays(node).or(local_only);
        let source = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
        if node.is::<SelectRowsExec>() || source.is_some_and(|source| source.is::<FileScanConfig>()) {
            reads_nothing = false;
            let known = expected::bytes(node);
            bytes = known.map(|known| bytes.unwrap_or(0) + known).or(bytes);
            largest = known.map_or(largest, |known| largest.max(known));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk itself cannot fail");
    Traits { bytes, largest, local_only, reads_nothing }
}
