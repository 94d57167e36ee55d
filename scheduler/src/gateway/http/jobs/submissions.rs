//! What was submitted: kept while it runs, and for an hour after its end, with its result if that is not too large.

use super::{JobError, StatementView, Status};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tokio_util::sync::CancellationToken;

const KEPT_FOR: chrono::Duration = chrono::Duration::hours(1);
/// Submissions that are kept; the oldest ended one makes room.
const KEPT: usize = 1_000;
/// Results of all submissions together; the oldest one makes room.
const ALL_RESULTS_BYTES: usize = 256 << 20;
/// A larger result fails the job: it belongs into a table, or on Flight SQL.
pub(super) const RESULT_BYTES: usize = 64 << 20;

pub(super) struct Rows {
    pub(super) schema: SchemaRef,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) bytes: usize,
}

pub(super) struct Progressing {
    pub(super) status: Status,
    pub(super) statements: Vec<StatementView>,
    pub(super) started_at: Option<DateTime<Utc>>,
    pub(super) finished_at: Option<DateTime<Utc>>,
    pub(super) error: Option<Error>,
    /// Of the last statement; `None` also when it had to make room.
    pub(super) rows: Option<Arc<Rows>>,
}

pub(super) struct Submission {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) submitted_at: DateTime<Utc>,
    pub(super) cancel: CancellationToken,
    pub(super) state: Mutex<Progressing>,
}

impl Submission {
    pub(super) fn new(user: &str, statements: Vec<String>) -> Arc<Self> {
        let view = |sql| StatementView { sql, job: None, status: Status::Queued, rows: 0 };
        Arc::new(Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            user: user.to_owned(),
            submitted_at: Utc::now(),
            cancel: CancellationToken::new(),
            state: Mutex::new(Progressing {
                status: Status::Queued,
                statements: statements.into_iter().map(view).collect(),
                started_at: None,
                finished_at: None,
                error: None,
                rows: None,
            }),
        })
    }

    fn is_of(&self, user: Option<&str>) -> bool {
        user.is_none_or(|user| self.user == user)
    }

    /// False when it has ended already.
    pub(super) fn cancel(&self) -> bool {
        let open = self.state.lock().finished_at.is_none();
        self.cancel.cancel();
        open
    }

    pub(super) fn end(&self, outcome: Result<Rows>) {
        let mut state = self.state.lock();
        state.finished_at = Some(Utc::now());
        match outcome {
            Ok(rows) => {
                state.status = Status::Done;
                state.rows = Some(Arc::new(rows));
            }
            Err(error) => {
                let status = if error.code == Code::Cancelled { Status::Cancelled } else { Status::Failed };
                state.status = status;
                // Those that come after it never begin.
                let open = |one: &&mut StatementView| matches!(one.status, Status::Queued | Status::Running);
                for (at, one) in state.statements.iter_mut().filter(open).enumerate() {
                    one.status = if at == 0 { status } else { Status::Cancelled };
                }
                state.error = Some(error);
            }
        }
    }

    pub(super) fn error(&self) -> Option<JobError> {
        self.state.lock().error.as_ref().map(JobError::from)
    }
}

/// All submissions of this process.
#[derive(Default)]
pub(in super::super) struct Submissions {
    kept: Mutex<HashMap<String, Arc<Submission>>>,
}

impl Submissions {
    pub(super) fn keep(&self, submission: &Arc<Submission>) {
        let mut kept = self.kept.lock();
        let oldest = Utc::now() - KEPT_FOR;
        kept.retain(|_, one| one.state.lock().finished_at.is_none_or(|ended| ended > oldest));
        while kept.len() >= KEPT {
            let ended = |one: &Arc<Submission>| Some((one.state.lock().finished_at?, one.id.clone()));
            let Some((_, oldest)) = kept.values().filter_map(ended).min() else { break };
            kept.remove(&oldest);
        }
        kept.insert(submission.id.clone(), submission.clone());
    }

    /// One of the user's, or of anybody's.
    pub(super) fn find(&self, id: &str, user: Option<&str>) -> Option<Arc<Submission>> {
        self.kept.lock().get(id).filter(|one| one.is_of(user)).cloned()
    }

    /// The user's, or everybody's; newest first.
    pub(super) fn of(&self, user: Option<&str>) -> Vec<Arc<Submission>> {
        let kept = self.kept.lock();
        let mut own: Vec<_> = kept.values().filter(|one| one.is_of(user)).cloned().collect();
        own.sort_by(|left, right| right.id.cmp(&left.id));
        own
    }

    /// Takes results away, the oldest first, until all of them together are small enough.
    pub(super) fn make_room(&self) {
        let kept = self.kept.lock();
        let size = |one: &Arc<Submission>| {
            let state = one.state.lock();
            Some((state.finished_at?, state.rows.as_ref()?.bytes, one.clone()))
        };
        let mut results: Vec<_> = kept.values().filter_map(size).collect();
        results.sort_by_key(|(ended, ..)| *ended);
        let mut all: usize = results.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, submission) in results {
            if all <= ALL_RESULTS_BYTES {
                break;
            }
            submission.state.lock().rows = None;
            all -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;

    fn ended(submissions: &Submissions, bytes: usize) -> Arc<Submission> {
        let submission = Submission::new("ann", vec!["SELECT 1".to_owned()]);
        submissions.keep(&submission);
        submission.end(Ok(Rows { schema: Arc::new(Schema::empty()), batches: Vec::new(), bytes }));
        submission
    }

    #[test]
    fn the_oldest_results_make_room() {
        let submissions = Submissions::default();
        let all: Vec<_> = (0..3).map(|_| ended(&submissions, ALL_RESULTS_BYTES / 2)).collect();
        submissions.make_room();
        let kept: Vec<bool> = all.iter().map(|one| one.state.lock().rows.is_some()).collect();
        assert_eq!(kept, [false, true, true]);
    }

    #[test]
    fn only_so_many_are_kept_and_only_for_their_user() {
        let submissions = Submissions::default();
        let running = Submission::new("ann", vec!["SELECT 1".to_owned()]);
        submissions.keep(&running);
        let first = ended(&submissions, 0);
        for _ in 0..KEPT {
            ended(&submissions, 0);
        }
        assert_eq!(submissions.of(Some("ann")).len(), KEPT);
        assert!(submissions.find(&first.id, Some("ann")).is_none());
        assert!(submissions.find(&running.id, Some("ann")).is_some());
        assert!(submissions.find(&running.id, Some("bob")).is_none());
        assert!(submissions.find(&running.id, None).is_some());
    }
}
