//! One job: submitted, watched, fetched, cleaned up; cancelled when its stream is dropped.

use super::Server;
use super::fetch::Clients;
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
use tidemill_engine::{Execution, JobSpec, Progress, from_datafusion, guard, to_datafusion, wire_error};
use tokio::sync::mpsc;

/// Partitions opened ahead of the one that is read.
const OPEN_AHEAD: usize = 8;
const STATUS_BUFFER: usize = 1024;
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// A lost report of a task's end leaves a job running for ever. A job of which nothing has moved for so long
/// is taken for such a one.
const NO_PROGRESS: Duration = Duration::from_secs(900);

pub(super) async fn submit(
    server: Server,
    clients: Clients,
    job: JobSpec,
    plan: Arc<dyn ExecutionPlan>,
    session: Arc<SessionContext>,
) -> Result<Execution> {
    let (subscriber, statuses) = mpsc::channel(STATUS_BUFFER);
    let id = server
        .submit_physical_plan(&job.title, session, plan.clone(), Some(subscriber))
        .await
        .map_err(|error| Error::internal(format!("staged engine: {error}")))?;
    let progress = Arc::new(Mutex::new(Progress::default()));
    let watched = progress.clone();
    let mut builder = RecordBatchReceiverStream::builder(plan.schema(), 2);
    let sender = builder.tx();
    let run = Run { server, clients, progress, ended: false, id };
    builder.spawn(async move { run.drive(statuses, sender).await.map_err(to_datafusion) });
    Ok(Execution { stream: guard(builder.build()), progress: Arc::new(move || *watched.lock()), plan })
}

struct Run {
    server: Server,
    clients: Clients,
    id: JobId,
    progress: Arc<Mutex<Progress>>,
    /// Whether Ballista is through with the job, so that there is nothing to cancel.
    ended: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        let (server, id, ended) = (self.server.clone(), self.id.clone(), self.ended);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if !ended && let Err(error) = server.cancel_job(id.clone()).await {
                tracing::warn!(job = %id, %error, "a staged job could not be cancelled");
            }
            if ended {
                server.state.executor_manager.clean_up_job_data(id);
            }
        });
    }
}

impl Run {
    async fn drive(
        mut self,
        statuses: mpsc::Receiver<JobStatus>,
        sender: mpsc::Sender<DfResult<RecordBatch>>,
    ) -> Result<()> {
        let locations = self.wait(statuses).await?;
        let mut partitions = futures::stream::iter(locations)
            .map(|location| self.clients.fetch(location))
            .buffered(OPEN_AHEAD);
        while let Some(mut partition) = partitions.try_next().await? {
            while let Some(batch) = partition.next().await {
                let batch = batch.map_err(from_datafusion)?;
                self.progress.lock().rows += batch.num_rows() as u64;
                // The client is gone.
                if sender.send(Ok(batch)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Waits for the end of the job.
    async fn wait(&mut self, mut statuses: mpsc::Receiver<JobStatus>) -> Result<Vec<PartitionLocation>> {
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        let mut moved = (Instant::now(), None);
        loop {
            tokio::select! {
                status = statuses.recv() => match status.map(|status| status.status) {
                    Some(Some(Status::Successful(job))) => {
                        self.ended = true;
                        let mut progress = self.progress.lock();
                        progress.stages_done = progress.stages;
                        return Ok(job.partition_location);
                    }
                    Some(Some(Status::Failed(job))) => {
                        self.ended = true;
                        return Err(wire_error::from_text(&job.error, Code::ExternalFailure));
                    }
                    Some(_) => {}
                    None => return Err(Error::new(Code::WorkerLost, "the staged engine forgot the job")
                        .hint("run the statement again")),
                },
                _ = watch.tick() => {
                    let now = self.look().await;
                    if moved.1 != Some(now) {
                        moved = (Instant::now(), Some(now));
                    }
                    if moved.0.elapsed() > NO_PROGRESS {
                        let message = format!("nothing of the job moved for {} minutes", NO_PROGRESS.as_secs() / 60);
                        return Err(Error::new(Code::WorkerLost, message).hint("run the statement again"));
                    }
                }
            }
        }
    }

    /// Finished stages, and tasks that wait or run.
    async fn look(&self) -> (usize, usize, usize) {
        let jobs = self.server.state.task_manager.get_running_job_cache();
        let Some(job) = jobs.get(&self.id) else { return (0, 0, 0) };
        let graph = job.execution_graph.read().await;
        let overview = JobOverview::from(&*graph);
        let mut progress = self.progress.lock();
        progress.stages = overview.num_stages as u32;
        progress.stages_done = overview.completed_stages as u32;
        (overview.completed_stages, graph.available_tasks(), graph.running_tasks().len())
    }
}
