//! The jobs of this process: which wait and run, how they ended, and how to cancel them.

use super::cost::Cost;
use super::tasks::{TaskView, tasks};
use crate::admission::{Lane, Priority};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemill_core::{Code, Error, JobId};
use tidemill_engine::{EngineKind, Progress};
use tokio_util::sync::CancellationToken;

/// Ended jobs that are kept for `tidemill.jobs`.
pub(super) const HISTORY: usize = 1000;

/// Of so many ended jobs the tasks are kept as well.
const WITH_TASKS: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobStatus {
    /// Waits for its turn.
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl JobStatus {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            JobStatus::Queued => "queued",
            JobStatus::Running => "running",
            JobStatus::Done => "done",
            JobStatus::Failed => "failed",
            JobStatus::Cancelled => "cancelled",
        }
    }
}

/// A job, as `tidemill.jobs` shows it. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobView {
    pub id: JobId,
    pub user: String,
    pub sql: String,
    pub engine: EngineKind,
    /// Why that engine was taken.
    pub reason: String,
    pub priority: Priority,
    pub lane: Lane,
    pub status: JobStatus,
    pub queued_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
    /// Rows that the client was given.
    pub rows: u64,
    /// Bytes that the leaves are expected to read.
    pub expected_bytes: Option<u64>,
    pub progress: Progress,
    pub error: Option<Error>,
    /// Known of jobs under way and of the newest that have ended.
    #[serde(skip)]
    pub tasks: Vec<TaskView>,
}

/// Reads the progress of a job at this moment.
pub(super) type Watch = Arc<dyn Fn() -> Progress + Send + Sync>;

struct Open {
    view: JobView,
    cancel: CancellationToken,
    progress: Watch,
    plan: Option<Arc<dyn ExecutionPlan>>,
    rows: Arc<AtomicU64>,
    /// Whether it is shown after its end.
    kept: bool,
}

#[derive(Default)]
struct Book {
    open: HashMap<JobId, Open>,
    ended: VecDeque<JobView>,
    /// Those of the ended that no journal has yet.
    unwritten: VecDeque<JobView>,
}

/// All jobs of this process.
#[derive(Clone, Default)]
pub(super) struct Jobs {
    book: Arc<Mutex<Book>>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("open", &self.book.lock().open.len()).finish_non_exhaustive()
    }
}

/// What is known of a job when it is made.
pub(super) struct NewJob<'a> {
    pub(super) id: JobId,
    pub(super) user: &'a str,
    pub(super) sql: &'a str,
    pub(super) engine: EngineKind,
    pub(super) reason: &'a str,
    pub(super) priority: Priority,
    pub(super) cost: Cost,
    /// Whether it is shown after its end.
    pub(super) kept: bool,
}

impl Jobs {
    /// Enters a job, which waits for its turn from now on.
    pub(super) fn open(&self, new: NewJob<'_>) -> Job {
        let (cancel, rows) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let view = JobView {
            id: new.id.clone(),
            user: new.user.to_owned(),
            sql: new.sql.to_owned(),
            engine: new.engine,
            reason: new.reason.to_owned(),
            priority: new.priority,
            lane: new.cost.lane,
            status: JobStatus::Queued,
            queued_at_ms: now_ms(),
            started_at_ms: None,
            finished_at_ms: None,
            rows: 0,
            expected_bytes: new.cost.bytes,
            progress: Progress::default(),
            error: None,
            tasks: Vec::new(),
        };
        let open = Open {
            view,
            cancel: cancel.clone(),
            progress: Arc::new(Progress::default),
            plan: None,
            rows: rows.clone(),
            kept: new.kept,
        };
        self.book.lock().open.insert(new.id.clone(), open);
        Job { jobs: self.clone(), id: new.id, cancel, rows }
    }

    /// False when no such job waits or runs, or, where a user is named, none of this user's.
    pub(super) fn cancel(&self, id: &JobId, user: Option<&str>) -> bool {
        let book = self.book.lock();
        let open = book.open.get(id).filter(|open| user.is_none_or(|user| open.view.user == user));
        open.inspect(|open| open.cancel.cancel()).is_some()
    }

    pub(super) fn progress(&self, id: &JobId) -> Option<Progress> {
        let watch = self.book.lock().open.get(id).map(|open| open.progress.clone())?;
        Some(watch())
    }

    /// Those under way first, then the ended, newest first.
    pub(super) fn list(&self) -> Vec<JobView> {
        let book = self.book.lock();
        let mut views: Vec<JobView> = book.open.values().map(Open::now).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.queued_at_ms));
        views.extend(book.ended.iter().rev().cloned());
        views
    }

    fn change(&self, id: &JobId, change: impl FnOnce(&mut Open)) {
        if let Some(open) = self.book.lock().open.get_mut(id) {
            change(open);
        }
    }

    fn end(&self, id: &JobId, status: JobStatus, error: Option<Error>) {
        let mut book = self.book.lock();
        let Some(open) = book.open.remove(id) else { return };
        if !open.kept {
            return;
        }
        let view = JobView { status, finished_at_ms: Some(now_ms()), error, ..open.now() };
        book.unwritten.push_back(view.clone());
        if let Some(older) = book.ended.len().checked_sub(WITH_TASKS).and_then(|at| book.ended.get_mut(at)) {
            older.tasks = Vec::new();
        }
        book.ended.push_back(view);
        let Book { ended, unwritten, .. } = &mut *book;
        [ended, unwritten].into_iter().for_each(bound);
    }

    /// Jobs that ended before this process began.
    pub(super) fn remember(&self, jobs: Vec<JobView>) {
        let mut book = self.book.lock();
        book.ended = jobs.into();
        bound(&mut book.ended);
    }

    /// Those that have ended since this was asked for the last time.
    pub(super) fn unwritten(&self) -> VecDeque<JobView> {
        std::mem::take(&mut self.book.lock().unwritten)
    }
}

impl Open {
    fn now(&self) -> JobView {
        let rows = self.rows.load(Ordering::Relaxed);
        let tasks = self.plan.as_ref().map(tasks).unwrap_or_default();
        JobView { progress: (self.progress)(), rows, tasks, ..self.view.clone() }
    }
}

/// Lets the oldest go.
fn bound(jobs: &mut VecDeque<JobView>) {
    let many = jobs.len().saturating_sub(HISTORY);
    jobs.drain(..many);
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// The hand of the one who runs a job. Dropped before its end, the job counts as cancelled.
#[derive(Debug)]
pub(super) struct Job {
    jobs: Jobs,
    pub(super) id: JobId,
    pub(super) cancel: CancellationToken,
    rows: Arc<AtomicU64>,
}

impl Job {
    /// Its turn has come.
    pub(super) fn started(&self) {
        self.jobs.change(&self.id, |open| {
            open.view.status = JobStatus::Running;
            open.view.started_at_ms.get_or_insert_with(now_ms);
        });
    }

    /// It left its slot and waits for another turn.
    pub(super) fn waits(&self) {
        self.jobs.change(&self.id, |open| open.view.status = JobStatus::Queued);
    }

    /// A try has begun: what it reads its progress and its tasks from.
    pub(super) fn watch(&self, progress: Watch, plan: Arc<dyn ExecutionPlan>) {
        self.jobs.change(&self.id, |open| {
            open.progress = progress;
            open.plan = Some(plan);
        });
    }

    /// It begins again on another engine.
    pub(super) fn moved(&self, engine: EngineKind, reason: &str) {
        self.jobs.change(&self.id, |open| {
            open.view.engine = engine;
            reason.clone_into(&mut open.view.reason);
        });
    }

    pub(super) fn gave(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn progress(&self) -> Progress {
        self.jobs.progress(&self.id).unwrap_or_default()
    }

    /// Reads the progress, also after the job has come to its second engine.
    pub(super) fn watcher(&self) -> Watch {
        let (jobs, id) = (self.jobs.clone(), self.id.clone());
        Arc::new(move || jobs.progress(&id).unwrap_or_default())
    }

    pub(super) fn end(&self, outcome: &Result<(), Error>) {
        let (status, error) = match outcome {
            Ok(()) => (JobStatus::Done, None),
            Err(error) if error.code == Code::Cancelled => (JobStatus::Cancelled, Some(error.clone())),
            Err(error) => (JobStatus::Failed, Some(error.clone())),
        };
        self.jobs.end(&self.id, status, error);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Does nothing when it has ended.
        self.jobs.end(&self.id, JobStatus::Cancelled, None);
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::frontend) fn open(jobs: &Jobs, id: &str, sql: &str, kept: bool) -> Job {
        jobs.open(NewJob {
            id: JobId::new(id),
            user: "ann",
            sql,
            engine: EngineKind::InProcess,
            reason: "one process",
            priority: Priority::Normal,
            cost: Cost { lane: Lane::Light, bytes: None },
            kept,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(jobs: &Jobs, id: &str, kept: bool) -> Job {
        testing::open(jobs, id, "SELECT 1", kept)
    }

    #[test]
    fn a_job_is_shown_from_the_queue_to_its_end() {
        let jobs = Jobs::default();
        let job = open(&jobs, "j", true);
        assert_eq!(jobs.list()[0].status, JobStatus::Queued);
        job.started();
        job.gave(7);
        assert!(!jobs.cancel(&job.id, Some("bob")) && !job.cancel.is_cancelled(), "it is ann's");
        assert!(jobs.cancel(&job.id, Some("ann")) && job.cancel.is_cancelled());
        job.end(&Ok(()));
        drop(job);
        let view = &jobs.list()[0];
        assert_eq!((view.status, view.rows), (JobStatus::Done, 7));
        assert!(!jobs.cancel(&view.id, None), "it has ended");
    }

    #[test]
    fn who_goes_away_cancels() {
        let jobs = Jobs::default();
        drop(open(&jobs, "j", true));
        assert_eq!(jobs.list()[0].status, JobStatus::Cancelled);
    }

    #[test]
    fn some_jobs_are_shown_only_while_they_run() {
        let jobs = Jobs::default();
        let job = open(&jobs, "j", false);
        assert_eq!(jobs.list().len(), 1);
        drop(job);
        assert!(jobs.list().is_empty());
    }
}
