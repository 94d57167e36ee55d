//! Runs a job: waits for its turn, runs it on its engine, and another way when that failed for memory or for a lost
//! worker: on the staged engine, or where there is none with joins that sort and spill instead of hashing in memory.
//!
//! ```text
//! client polls ─▶ JobStream ◀─ two batches at most ─ Driver (a task) ─▶ Gate ─▶ engine's stream
//!                     └─ dropped: the task ends, and with it the engine's stream, its memory and its slot
//! ```
//! A job asks for its turn when its client first reads. A small result waits in the stream and holds no slot; a
//! client that stops reading a large one loses the slot until it reads again.

use super::answers::new_job;
use super::cost::{self, Cost};
use super::jobs::{Job, NewJob};
use super::query::{Planned, Runner, physical, plan_for};
use super::session::Session;
use crate::admission::{Lane, Permit, Request};
use crate::engines::EngineChoice;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::memory_pool::{MemoryLimit, human_readable_size};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tidemill_core::{Code, Error, JobId, Result};
use tidemill_engine::{EngineKind, Execution, Progress, from_datafusion, memory, to_datafusion};
use tidemill_sql::SYSTEM_SCHEMA;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;

/// Batches that wait for the client.
const BUFFER: usize = 2;
/// A client that does not read for so long gives the slot to others.
const PATIENCE: Duration = Duration::from_secs(1);

/// One try of a job.
pub(super) struct Try {
    pub(super) planned: Planned,
    pub(super) job: JobId,
    /// From 1.
    pub(super) number: u64,
    pub(super) context: Arc<TaskContext>,
}

/// Starts a try: the plan on its engine, and what is done with its rows.
pub(super) type Launch = Box<dyn Fn(Try) -> BoxFuture<'static, Result<Execution>> + Send + Sync>;

/// A job that nobody has asked for yet.
pub(super) struct Driver {
    runner: Runner,
    session: Session,
    logical: LogicalPlan,
    planned: Planned,
    launch: Launch,
    job: Job,
    request: Request,
    /// Its joins sort already.
    sorts: bool,
}

impl Runner {
    /// The job of a plan, from its place in the queue to its last row.
    pub(super) fn job(
        &self,
        session: &Session,
        sql: &str,
        logical: LogicalPlan,
        planned: Planned,
        launch: Launch,
    ) -> Driver {
        let cost = cost::of(&planned.plan, self.heavy_from);
        self.job_costing(cost, session, sql, logical, planned, launch)
    }

    /// The same for work whose plan does not show its cost.
    pub(super) fn job_costing(
        &self,
        cost: Cost,
        session: &Session,
        sql: &str,
        logical: LogicalPlan,
        planned: Planned,
        launch: Launch,
    ) -> Driver {
        let priority = session.limits.priority;
        let job = self.jobs.open(NewJob {
            id: new_job(),
            user: &session.user,
            sql,
            engine: planned.engine.kind(),
            reason: &planned.reason,
            priority,
            cost,
            kept: !is_introspection(&logical),
        });
        let request = Request { user: session.user.clone(), lane: cost.lane, priority, again: false };
        Driver {
            runner: self.clone(),
            session: session.clone(),
            logical,
            planned,
            launch,
            job,
            request,
            sorts: false,
        }
    }

    /// Bytes that one job may use in this process.
    fn memory_limit(&self, session: &Session) -> Option<usize> {
        let MemoryLimit::Finite(all) = session.state.runtime_env().memory_pool.memory_limit() else {
            return session.limits.memory;
        };
        let usual = match self.memory_limit {
            0 => all / 4 * 3,
            bytes => bytes,
        };
        Some(session.limits.memory.unwrap_or(usual).min(all))
    }
}

/// A look at the node itself, as the web page and dashboards take all the time.
fn is_introspection(plan: &LogicalPlan) -> bool {
    let (mut system, mut other) = (false, false);
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            match scan.table_name.schema() {
                Some(SYSTEM_SCHEMA) => system = true,
                _ => other = true,
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && system && !other
}

impl Driver {
    pub(super) fn id(&self) -> JobId {
        self.job.id.clone()
    }

    /// However many wait: for work that nobody sits in front of.
    pub(super) fn never_refused(mut self) -> Self {
        self.request.again = true;
        self
    }

    pub(super) fn watcher(&self) -> Arc<dyn Fn() -> Progress + Send + Sync> {
        self.job.watcher()
    }

    /// The rows; reading them makes the job run.
    pub(super) fn stream(self, schema: SchemaRef) -> SendableRecordBatchStream {
        Box::pin(JobStream { schema, state: State::New(Box::new(self)) })
    }

    fn start(self) -> Running {
        let (sender, batches) = mpsc::channel(BUFFER);
        let end = Arc::new(Mutex::new(None));
        let task = tokio::spawn(self.run(sender, end.clone()));
        Running { batches, end, task: task.abort_handle() }
    }

    async fn run(mut self, sender: Sender<RecordBatch>, end: Arc<Mutex<Option<Result<()>>>>) {
        let cancel = self.job.cancel.clone();
        let timeout = self.session.limits.timeout;
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                Err(Error::new(Code::Cancelled, format!("job {} was cancelled", self.job.id)))
            }
            error = expired(timeout) => Err(error),
            outcome = self.work(&sender) => outcome,
        };
        self.job.end(&outcome);
        *end.lock() = Some(outcome);
        // The channel closes after the outcome is there.
        drop(sender);
    }

    async fn work(&mut self, sender: &Sender<RecordBatch>) -> Result<()> {
        let mut permit = Some(self.runner.gate.enter(&self.request).await?);
        self.request.again = true;
        self.job.started();
        for number in 1.. {
            let mut begun = false;
            let Err(error) = self.attempt(number, sender, &mut permit, &mut begun).await else { break };
            let again = if begun { None } else { self.another_way(&error).await };
            let Some(planned) = again else { return Err(self.advise(error)) };
            tracing::warn!(job = %self.job.id, %error, engine = planned.engine.kind().as_str(), "the job begins again");
            self.job.moved(planned.engine.kind(), &planned.reason);
            self.planned = planned;
        }
        Ok(())
    }

    async fn attempt(
        &self,
        number: u64,
        sender: &Sender<RecordBatch>,
        permit: &mut Option<Permit>,
        begun: &mut bool,
    ) -> Result<()> {
        let mut context = TaskContext::from(self.session.state.as_ref());
        if self.planned.engine.kind() == EngineKind::InProcess
            && let Some(bytes) = self.runner.memory_limit(&self.session)
        {
            context = memory::limited(context, bytes);
        }
        let (planned, job) = (self.planned.clone(), self.job.id.clone());
        let this = Try { planned, job, number, context: Arc::new(context) };
        let mut running = self.start_try(this).await?;
        self.job.watch(running.progress.clone(), running.plan.clone());
        while let Some(batch) = running.stream.next().await {
            let batch = batch.map_err(from_datafusion)?;
            *begun |= batch.num_rows() > 0;
            self.job.gave(batch.num_rows());
            if !self.send(batch, sender, permit).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Heavy work of this process is polled on threads of its own. The driver is not: however long an operator
    /// computes between two rows, the driver can end it.
    async fn start_try(&self, this: Try) -> Result<Execution> {
        let heavy = self.planned.engine.kind() == EngineKind::InProcess && self.request.lane == Lane::Heavy;
        let starting = (self.launch)(this);
        match heavy {
            true => self.runner.background.run(starting).await,
            false => starting.await,
        }
    }

    /// False when the client is gone.
    async fn send(
        &self,
        batch: RecordBatch,
        sender: &Sender<RecordBatch>,
        permit: &mut Option<Permit>,
    ) -> Result<bool> {
        let mut sending = pin!(sender.send(batch));
        if let Ok(sent) = tokio::time::timeout(PATIENCE, &mut sending).await {
            return Ok(sent.is_ok());
        }
        *permit = None;
        if sending.await.is_err() {
            return Ok(false);
        }
        self.job.waits();
        *permit = Some(self.runner.gate.enter(&self.request).await?);
        self.job.started();
        Ok(true)
    }

    /// How what has failed may work.
    async fn another_way(&mut self, error: &Error) -> Option<Planned> {
        let why = match error.code {
            Code::ResourcesExhausted => "ran out of memory",
            Code::WorkerLost => "lost a worker",
            _ => return None,
        };
        let first = self.planned.engine.kind();
        let planned = match self.runner.engines.second(self.session.engine, first) {
            Some(second) => {
                let choice = EngineChoice::Only(second.kind());
                plan_for(&self.runner.engines, choice, &self.session.state, &self.logical).await
            }
            None if error.code == Code::ResourcesExhausted => self.sorting_joins().await?,
            None => return None,
        };
        // What cannot be planned so keeps its first error.
        let planned = planned.ok()?;
        Some(Planned { reason: format!("{} {why} ({})", first.as_str(), error.message), ..planned })
    }

    /// The same on the same engine with joins that sort their sides, as sorts can spill and hash tables cannot; `None`
    /// where that was done or no join would change.
    async fn sorting_joins(&mut self) -> Option<Result<Planned>> {
        let engine = self.planned.engine.clone();
        let hashes = self.planned.plan.exists(|node| Ok(node.is::<HashJoinExec>())).unwrap_or_default();
        if engine.kind() == EngineKind::Pipelined || !hashes || std::mem::replace(&mut self.sorts, true) {
            return None;
        }
        let mut config = engine.planning(self.session.state.config(), None);
        let options = config.options_mut();
        options.optimizer.prefer_hash_join = false;
        // DataFusion plans them for several partitions only.
        options.execution.target_partitions = options.execution.target_partitions.max(2);
        let plan = physical(&self.session.state, config, &self.logical).await;
        Some(plan.map(|plan| Planned { plan, engine, reason: String::new() }))
    }

    /// Out of memory: how much there was, and what helps.
    fn advise(&self, error: Error) -> Error {
        if error.code != Code::ResourcesExhausted {
            return error;
        }
        let spilled = match self.job.progress().spilled {
            0 => "nothing was spilled".to_owned(),
            bytes => format!("{} were spilled", human_readable_size(bytes as usize)),
        };
        let had = match (self.planned.engine.kind(), self.runner.memory_limit(&self.session)) {
            (EngineKind::InProcess, Some(bytes)) => {
                format!("the job may use {}, {spilled}", human_readable_size(bytes))
            }
            _ => spilled,
        };
        let staged = match self.planned.engine.kind() {
            EngineKind::Staged => "",
            _ => "SET engine = 'staged' on a cluster, ",
        };
        let advice =
            format!("{had}; add a filter, {staged}or raise SET memory_limit and engine.memory_limit_bytes");
        Error { hint: Some(advice), ..error }
    }
}

async fn expired(timeout: Option<Duration>) -> Error {
    let Some(timeout) = timeout else { return std::future::pending().await };
    tokio::time::sleep(timeout).await;
    Error::new(Code::Cancelled, format!("the statement took longer than {timeout:?}"))
        .hint("SET statement_timeout = '…' gives it more time, 0 all that it needs")
}

enum State {
    New(Box<Driver>),
    Running(Running),
    Ended,
}

struct Running {
    batches: Receiver<RecordBatch>,
    end: Arc<Mutex<Option<Result<()>>>>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A job's rows. Dropping it before its end cancels the job.
struct JobStream {
    schema: SchemaRef,
    state: State,
}

impl Stream for JobStream {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if matches!(self.state, State::New(_))
            && let State::New(driver) = std::mem::replace(&mut self.state, State::Ended)
        {
            self.state = State::Running(driver.start());
        }
        let State::Running(running) = &mut self.state else { return Poll::Ready(None) };
        if let Some(batch) = ready!(running.batches.poll_recv(context)) {
            return Poll::Ready(Some(Ok(batch)));
        }
        let end = running.end.lock().take();
        self.state = State::Ended;
        Poll::Ready(match end {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(Err(to_datafusion(error))),
            None => Some(Err(to_datafusion(Error::internal("the task of the job panicked")))),
        })
    }
}

impl RecordBatchStream for JobStream {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

#[cfg(test)]
mod tests;
