//! `PollFlightInfo`: a statement that runs while its client asks now and then how far it is.
//!
//! ```text
//! PollFlightInfo(statement)  ─▶ started, no endpoint yet, a descriptor to ask again with
//! PollFlightInfo(descriptor) ─▶ still running, its progress
//! PollFlightInfo(descriptor) ─▶ an endpoint: rows can be fetched, or the change is committed
//! ```
//! A query has its endpoint when its first rows are there, and not when all of them are: these are not kept here.

use super::results::JobNote;
use crate::frontend::api::{Answer, AnswerKind};
use arrow::datatypes::SchemaRef;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_core::{Code, Error, JobId, Result};
use tidemill_engine::{Progress, from_datafusion};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A statement that nobody asks about for so long is cancelled.
const UNASKED: Duration = Duration::from_secs(300);
/// How long one call waits for the statement to be done.
const WAIT: Duration = Duration::from_secs(1);

/// How a statement stands that is polled.
pub(super) enum Standing {
    Running { note: JobNote, schema: SchemaRef, progress: f64 },
    Ready(Answer),
}

struct Polled {
    user: String,
    asked: Instant,
    note: JobNote,
    schema: SchemaRef,
    progress: Arc<dyn Fn() -> Progress + Send + Sync>,
    done: watch::Receiver<bool>,
    outcome: Arc<Mutex<Option<Result<Answer>>>>,
    task: JoinHandle<()>,
}

impl Drop for Polled {
    /// What still runs is cancelled with its stream.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Statements that are polled, by job.
#[derive(Default)]
pub(super) struct Polls(Mutex<HashMap<JobId, Polled>>);

impl Polls {
    /// Lets the statement run until it has something to fetch.
    pub(super) fn start(&self, user: &str, answer: Answer) -> JobId {
        let job = answer.job.clone();
        let (note, schema) = (JobNote::of(&answer), Arc::clone(&answer.schema));
        let progress = Arc::clone(&answer.progress);
        let outcome = Arc::new(Mutex::new(None));
        let (finished, done) = watch::channel(false);
        let shared = Arc::clone(&outcome);
        let task = tokio::spawn(async move {
            let ready = ready(answer).await;
            *shared.lock() = Some(ready);
            finished.send_replace(true);
        });
        let user = user.to_owned();
        let asked = Instant::now();
        let polled = Polled { user, asked, note, schema, progress, done, outcome, task };
        self.0.lock().insert(job.clone(), polled);
        job
    }

    /// Waits a moment for the statement. An answer or an error is given once.
    pub(super) async fn ask(&self, user: &str, job: &JobId) -> Result<Standing> {
        let mut done = {
            let mut polls = self.0.lock();
            let polled = polls.get_mut(job).filter(|polled| polled.user == user).ok_or_else(|| gone(job))?;
            polled.asked = Instant::now();
            polled.done.clone()
        };
        let finished = tokio::time::timeout(WAIT, done.wait_for(|done| *done)).await.is_ok();
        let mut polls = self.0.lock();
        if finished {
            let polled = polls.remove(job).ok_or_else(|| gone(job))?;
            let outcome = polled.outcome.lock().take();
            let outcome =
                outcome.ok_or_else(|| Error::internal("a polled statement ended without a word"))?;
            return outcome.map(Standing::Ready);
        }
        let polled = polls.get(job).ok_or_else(|| gone(job))?;
        let progress = share((polled.progress)());
        Ok(Standing::Running { note: polled.note.clone(), schema: Arc::clone(&polled.schema), progress })
    }

    /// Forgets the statement, if it is polled and is this user's, where one is named.
    pub(super) fn discard(&self, user: Option<&str>, job: &JobId) -> bool {
        let mut polls = self.0.lock();
        let theirs = |polled: &Polled| user.is_none_or(|user| polled.user == user);
        polls.get(job).is_some_and(theirs) && polls.remove(job).is_some()
    }

    pub(super) fn sweep(&self) {
        self.0.lock().retain(|_, polled| polled.asked.elapsed() < UNASKED);
    }
}

fn gone(job: &JobId) -> Error {
    Error::new(Code::UnknownObject, format!("no statement `{job}` is polled"))
        .hint("it is done and was fetched, or nobody asked for five minutes; run it again")
}

/// Runs a change to its end, and a query to its first rows.
async fn ready(mut answer: Answer) -> Result<Answer> {
    if answer.kind != AnswerKind::Rows {
        return answer.completed().await;
    }
    let first = match answer.stream.next().await {
        Some(batch) => Some(Ok(batch.map_err(from_datafusion)?)),
        None => None,
    };
    let whole = futures::stream::iter(first).chain(answer.stream);
    let stream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&answer.schema), whole));
    Ok(Answer { stream, ..answer })
}

/// Between 0 and 1, by tasks where they are known. Never 1: then it would be ready.
fn share(progress: Progress) -> f64 {
    let (done, all) = match progress.tasks {
        0 => (progress.stages_done, progress.stages),
        tasks => (progress.tasks_done, tasks),
    };
    if all == 0 { 0.0 } else { (f64::from(done) / f64::from(all)).clamp(0.0, 0.99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_share() {
        let tasks = |tasks_done, tasks| share(Progress { tasks_done, tasks, ..Progress::default() });
        assert_eq!((tasks(0, 0), tasks(1, 4), tasks(4, 4)), (0.0, 0.25, 0.99));
        assert_eq!(share(Progress { stages: 2, stages_done: 1, ..Progress::default() }), 0.5);
    }
}
