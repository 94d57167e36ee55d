//! Runs a job, and runs it again when it lost a worker.

use super::Pipelined;
use super::distribute::Distributed;
use super::members::Member;
use super::report;
use crate::guard::guard;
use crate::stages::StageReports;
use crate::wire_error::unwrapped;
use crate::{Execution, JobKind, JobSpec, Progress, from_datafusion, to_datafusion};
use arrow::array::RecordBatch;
use datafusion::common::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion_distributed::NetworkBoundaryExt;
use futures::StreamExt;
use futures::future::join_all;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tokio::sync::mpsc::Sender;

const TRIES: usize = 3;
/// How often a running job looks whether its workers are still members.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Job {
    pub(super) engine: Pipelined,
    pub(super) spec: JobSpec,
    /// What is distributed for each further try. Nothing that a try finds out while it runs gets into it.
    pub(super) again: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
}

/// How a try ended, short of success.
struct Failure {
    error: Error,
    /// Whether rows were handed out, so that the job cannot begin again.
    begun: bool,
}

impl Job {
    /// Starts the job with a first plan. Dropping the stream cancels it.
    pub(super) fn run(self, first: Distributed) -> Execution {
        let plan = first.plan.clone();
        let progress = Arc::new(Mutex::new(plan_progress(&plan)));
        let watched = progress.clone();
        // The plan of the newest try.
        let newest = Arc::new(Mutex::new(plan.clone()));
        let run = newest.clone();
        let mut builder = RecordBatchReceiverStream::builder(plan.schema(), 2);
        let sender = builder.tx();
        builder
            .spawn(async move { self.drive(first, sender, &progress, &newest).await.map_err(to_datafusion) });
        let stages: StageReports = Arc::new(move || Box::pin(report::stages(run.lock().clone())));
        Execution { stream: builder.build(), progress: Arc::new(move || *watched.lock()), plan, stages }
    }

    async fn drive(
        self,
        mut next: Distributed,
        sender: Sender<DfResult<RecordBatch>>,
        progress: &Mutex<Progress>,
        newest: &Mutex<Arc<dyn ExecutionPlan>>,
    ) -> Result<()> {
        for attempt in 1.. {
            let workers = next.cluster.workers.clone();
            let Err(failure) = self.attempt(next, &sender, progress).await else {
                let mut progress = progress.lock();
                progress.stages_done = progress.stages;
                progress.tasks_done = progress.tasks;
                return Ok(());
            };
            let alive = self.probe(&workers).await;
            let error = match workers.iter().find(|worker| !alive.contains(worker)) {
                Some(lost) if failure.error.code != Code::WorkerLost => {
                    worker_lost(lost).context(failure.error.message)
                }
                _ => failure.error,
            };
            // An epoch is tried again by its driver, under a new scope.
            let again = error.code == Code::WorkerLost && !failure.begun && self.spec.kind != JobKind::Epoch;
            if !again || attempt == TRIES {
                return Err(error);
            }
            tracing::warn!(job = %self.spec.id, attempt, %error, "the job begins again on other workers");
            next = self.plan_again(&workers, &alive).await?;
            *progress.lock() = plan_progress(&next.plan);
            newest.lock().clone_from(&next.plan);
        }
        Ok(())
    }

    async fn attempt(
        &self,
        run: Distributed,
        sender: &Sender<DfResult<RecordBatch>>,
        progress: &Mutex<Progress>,
    ) -> Result<(), Failure> {
        let mut begun = false;
        let stream = execute_stream(run.plan, run.context);
        let mut stream =
            guard(stream.map_err(|error| Failure { error: unwrapped(from_datafusion(error)), begun })?);
        let mut watch = tokio::time::interval(WATCH_INTERVAL);
        loop {
            tokio::select! {
                item = stream.next() => match item {
                    None => return Ok(()),
                    Some(Err(error)) => {
                        return Err(Failure { error: unwrapped(from_datafusion(error)), begun });
                    }
                    Some(Ok(batch)) => {
                        progress.lock().rows += batch.num_rows() as u64;
                        begun |= batch.num_rows() > 0;
                        // The client is gone, and with it this task.
                        if sender.send(Ok(batch)).await.is_err() {
                            return Ok(());
                        }
                    }
                },
                _ = watch.tick() => {
                    let members = self.engine.members.members();
                    let gone = |worker: &&Member| !members.iter().any(|member| member.id == worker.id);
                    if let Some(lost) = run.cluster.workers.iter().find(gone) {
                        return Err(Failure { error: worker_lost(lost), begun });
                    }
                }
            }
        }
    }

    /// Those of `workers` that are members still, and answer.
    async fn probe(&self, workers: &[Member]) -> Vec<Member> {
        let members = self.engine.members.members();
        let answers = join_all(workers.iter().map(async |worker| {
            let member = members.iter().any(|member| member.id == worker.id);
            member && self.engine.channels.answers(&worker.url).await
        }));
        workers
            .iter()
            .zip(answers.await)
            .filter(|(_, answers)| *answers)
            .map(|(worker, _)| worker.clone())
            .collect()
    }

    /// A plan over the members of now, without those that did not answer.
    async fn plan_again(&self, before: &[Member], alive: &[Member]) -> Result<Distributed> {
        let mut workers = self.engine.live()?;
        self.engine.channels.retain(|url| workers.iter().any(|worker| worker.url == *url));
        workers.retain(|worker| alive.contains(worker) || !before.contains(worker));
        if workers.is_empty() {
            return Err(
                Error::new(Code::NoExecutors, "no executor answers").hint("look at the executors' logs")
            );
        }
        // Some operators run only once.
        let plan = reset_plan_states(self.again.clone()).map_err(from_datafusion)?;
        self.engine.cluster(workers).distribute(plan, &self.context).await
    }
}

fn worker_lost(worker: &Member) -> Error {
    Error::new(Code::WorkerLost, format!("executor {} at {} was lost", worker.id, worker.url))
        .hint("run the statement again")
}

fn plan_progress(plan: &Arc<dyn ExecutionPlan>) -> Progress {
    fn visit(plan: &Arc<dyn ExecutionPlan>, progress: &mut Progress) {
        if let Some(boundary) = plan.as_network_boundary() {
            progress.stages += 1;
            progress.tasks += boundary.input_stage().task_count() as u32;
        }
        plan.children().into_iter().for_each(|child| visit(child, progress));
    }
    let mut progress = Progress { stages: 1, tasks: 1, ..Progress::default() };
    visit(plan, &mut progress);
    progress
}
