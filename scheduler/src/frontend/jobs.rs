//! The jobs of this process: which wait and run, how they ended, and how to cancel them.

use crate::admission::{Lane, Priority};
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
    pub progress: Progress,
    pub error: Option<Error>,
}

/// Reads the progress of a job at this moment.
pub(super) type Watch = Arc<dyn Fn() -> Progress + Send + Sync>;

struct Open {
    view: JobView,
    cancel: CancellationToken,
    progress: Watch,
    rows: Arc<AtomicU64>,
    /// Whether it is shown after its end.
    kept: bool,
}

#[derive(Default)]
struct Book {
    open: HashMap<JobId, Open>,
    ended: VecDeque<JobView>,
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
    pub(super) lane: Lane,
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
            lane: new.lane,
            status: JobStatus::Queued,
            queued_at_ms: now_ms(),
            started_at_ms: None,
            finished_at_ms: None,
            rows: 0,
            progress: Progress::default(),
            error: None,
        };
        let open = Open {
            view,
            cancel: cancel.clone(),
            progress: Arc::new(Progress::default),
            rows: rows.clone(),
            kept: new.kept,
        };
        self.book.lock().open.insert(new.id.clone(), open);
        Job { jobs: self.clone(), id: new.id, cancel, rows }
    }

    /// False when no such job waits or runs.
    pub(super) fn cancel(&self, id: &JobId) -> bool {
        let book = self.book.lock();
        let open = book.open.get(id);
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
        book.ended.push_back(JobView { status, finished_at_ms: Some(now_ms()), error, ..open.now() });
        if book.ended.len() > HISTORY {
            book.ended.pop_front();
        }
    }
}

impl Open {
    fn now(&self) -> JobView {
        let rows = self.rows.load(Ordering::Relaxed);
        JobView { progress: (self.progress)(), rows, ..self.view.clone() }
    }
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

    pub(super) fn watch(&self, progress: Watch) {
        self.jobs.change(&self.id, |open| open.progress = progress);
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
mod tests {
    use super::*;

    fn open(jobs: &Jobs, id: &str, kept: bool) -> Job {
        jobs.open(NewJob {
            id: JobId::new(id),
            user: "ann",
            sql: "SELECT 1",
            engine: EngineKind::InProcess,
            reason: "one process",
            priority: Priority::Normal,
            lane: Lane::Light,
            kept,
        })
    }

    #[test]
    fn a_job_is_shown_from_the_queue_to_its_end() {
        let jobs = Jobs::default();
        let job = open(&jobs, "j", true);
        assert_eq!(jobs.list()[0].status, JobStatus::Queued);
        job.started();
        job.gave(7);
        assert!(jobs.cancel(&job.id) && job.cancel.is_cancelled());
        job.end(&Ok(()));
        drop(job);
        let view = &jobs.list()[0];
        assert_eq!((view.status, view.rows), (JobStatus::Done, 7));
        assert!(!jobs.cancel(&view.id), "it has ended");
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
