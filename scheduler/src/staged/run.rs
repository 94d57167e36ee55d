//! One job: submitted, watched, fetched, cleaned up; cancelled when its stream is dropped; and submitted again
//! when Ballista has lost the thread or a result, as long as no row was handed out.

use super::Server;
use super::fetch::Clients;
use super::report;
use ballista_core::JobId;
use ballista_core::serde::protobuf::job_status::Status;
use ballista_core::serde::protobuf::{JobStatus, PartitionLocation};
use ballista_scheduler::state::task_manager::JobOverview;
use datafusion::arrow::array::RecordBatch;
use datafusion::common::Result as DfResult;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::stages::{StageReport, StageReports};
use tidemill_engine::{
    Execution, JobKind, JobSpec, Progress, from_datafusion, guard, to_datafusion, wire_error,
};
use tokio::sync::mpsc;

const TRIES: usize = 3;
/// Partitions opened ahead of the one that is read.
const OPEN_AHEAD: usize = 8;
const STATUS_BUFFER: usize = 1024;
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// A job that has nothing to run, with executors at hand, is stuck: so it can end when several executors are
/// lost while its stages are rolled back.
const NOTHING_TO_RUN: Duration = Duration::from_secs(8);
/// A lost report of a task's end leaves the task running for ever. No task is expected to run for so long.
const NOTHING_MOVED: Duration = Duration::from_secs(1800);

pub(super) struct Job {
    pub(super) server: Server,
    pub(super) clients: Clients,
    pub(super) spec: JobSpec,
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) session: Arc<SessionContext>,
}

/// How a try ended, short of success.
struct Failure {
    error: Error,
    /// Whether rows were handed out, so that the job cannot begin again.
    begun: bool,
}

impl Job {
    /// Starts the job. Dropping the stream cancels it.
    pub(super) fn run(self) -> Execution {
        let plan = self.plan.clone();
        let progress = Arc::new(Mutex::new(Progress::default()));
        let watched = progress.clone();
        let reports: Arc<Mutex<Vec<StageReport>>> = Arc::default();
        let kept = reports.clone();
        let stages: StageReports = Arc::new(move || {
            let stages = kept.lock().clone();
            Box::pin(async move { Ok(stages) })
        });
        let mut builder = RecordBatchReceiverStream::builder(plan.schema(), 2);
        let sender = builder.tx();
        builder.spawn(async move { self.drive(&sender, &progress, &reports).await.map_err(to_datafusion) });
        let stream = guard(builder.build());
        Execution { stream, progress: Arc::new(move || *watched.lock()), plan, stages }
    }

    async fn drive(
        self,
        sender: &mpsc::Sender<DfResult<RecordBatch>>,
        progress: &Mutex<Progress>,
        reports: &Mutex<Vec<StageReport>>,
    ) -> Result<()> {
        for attempt in 1.. {
            let attempted = self.attempt(sender, progress, reports).await;
            let Err(Failure { error, begun }) = attempted else { return Ok(()) };
            if begun || error.code != Code::WorkerLost || attempt == TRIES {
                return Err(error);
            }
            tracing::warn!(job = %self.spec.id, attempt, %error, "the staged job begins again");
        }
        Ok(())
    }

    async fn attempt(
        &self,
        sender: &mpsc::Sender<DfResult<RecordBatch>>,
        progress: &Mutex<Progress>,
        reports: &Mutex<Vec<StageReport>>,
    ) -> Result<(), Failure> {
        let mut begun = false;
        let ended = async {
            let (subscriber, statuses) = mpsc::channel(STATUS_BUFFER);
            let (plan, session) = (self.plan.clone(), self.session.clone());
            let submitted =
                self.server.submit_physical_plan(&self.spec.title, session, plan, Some(subscriber)).await;
            let id = submitted.map_err(|error| Error::internal(format!("staged engine: {error}")))?;
            let mut run = Run { server: self.server.clone(), id, ended: false };
            let locations = run.wait(statuses, progress).await?;
            if self.spec.kind == JobKind::Analyze {
                *reports.lock() = report::stages(&self.server, &run.id)
                    .await
                    .unwrap_or_else(|error| vec![report::unknown(&error)]);
            }
            let fetched = futures::stream::iter(locations).map(|location| self.clients.fetch(location));
            let mut partitions = fetched.buffered(OPEN_AHEAD);
            while let Some(mut partition) = partitions.try_next().await? {
                while let Some(batch) = partition.next().await {
                    let batch = batch.map_err(from_datafusion)?;
                    progress.lock().rows += batch.num_rows() as u64;
                    begun |= batch.num_rows() > 0;
                    // The client is gone.
                    if sender.send(Ok(batch)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        let ended = ended.await;
        ended.map_err(|error| Failure { error, begun })
    }
}

/// A job that Ballista knows.
struct Run {
    server: Server,
    id: JobId,
    /// Whether Ballista is through with it, so that there is nothing to cancel.
    ended: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        let (server, id, ended) = (self.server.clone(), self.id.clone(), self.ended);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if ended {
                server.state.executor_manager.clean_up_job_data(id);
            } else if let Err(error) = server.cancel_job(id.clone()).await {
                tracing::warn!(job = %id, %error, "a staged job could not be cancelled");
            }
        });
    }
}

/// What is seen of a job from time to time.
#[derive(Clone, Copy)]
struct Sight {
    stages_done: usize,
    /// Tasks that could run and tasks that do.
    available: usize,
    running: usize,
    /// Tasks of all jobs that run.
    running_anywhere: usize,
}

impl Run {
    /// Waits for the end of the job.
    async fn wait(
        &mut self,
        mut statuses: mpsc::Receiver<JobStatus>,
        progress: &Mutex<Progress>,
    ) -> Result<Vec<PartitionLocation>> {
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        let (mut seen, mut since) = (None, Instant::now());
        loop {
            tokio::select! {
                status = statuses.recv() => match status.map(|status| status.status) {
                    Some(Some(Status::Successful(job))) => {
                        self.ended = true;
                        let mut progress = progress.lock();
                        progress.stages_done = progress.stages;
                        return Ok(job.partition_location);
                    }
                    Some(Some(Status::Failed(job))) => {
                        self.ended = true;
                        return Err(wire_error::from_text(&job.error, Code::ExternalFailure));
                    }
                    Some(_) => {}
                    None => return Err(stuck("the staged engine forgot the job")),
                },
                _ = watch.tick() => {
                    let sight = self.look(progress).await;
                    let own = sight.map(|sight| (sight.stages_done, sight.available, sight.running));
                    if seen != own || !self.server.is_ready() {
                        (seen, since) = (own, Instant::now());
                    }
                    let idle = sight.is_some_and(|sight| {
                        sight.running == 0 && (sight.available == 0 || sight.running_anywhere == 0)
                    });
                    let patience = if idle { NOTHING_TO_RUN } else { NOTHING_MOVED };
                    if since.elapsed() > patience {
                        return Err(stuck(&format!("nothing of the job moved for {} s", patience.as_secs())));
                    }
                }
            }
        }
    }

    /// `None` while the job is planned.
    async fn look(&self, progress: &Mutex<Progress>) -> Option<Sight> {
        let jobs = self.server.state.task_manager.get_running_job_cache();
        let mut running_anywhere = 0;
        for job in jobs.values() {
            running_anywhere += job.execution_graph.read().await.running_tasks().len();
        }
        let graph = jobs.get(&self.id)?.execution_graph.read().await;
        let overview = JobOverview::from(&*graph);
        let mut progress = progress.lock();
        progress.stages = overview.num_stages as u32;
        progress.stages_done = overview.completed_stages as u32;
        Some(Sight {
            stages_done: overview.completed_stages,
            available: graph.available_tasks(),
            running: graph.running_tasks().len(),
            running_anywhere,
        })
    }
}

fn stuck(what: &str) -> Error {
    Error::new(Code::WorkerLost, what).hint("run the statement again")
}
