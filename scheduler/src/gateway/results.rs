//! Answers between the call that starts a statement and the call that fetches it.

use crate::frontend::api::{Answer, AnswerKind};
use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tidemill_core::{Code, Error, JobId, Result};
use tidemill_engine::EngineKind;

/// An answer that nobody fetches for so long is dropped, which cancels its job.
const UNFETCHED: Duration = Duration::from_secs(300);

/// What `FlightInfo.app_metadata` says about a statement, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNote {
    pub job: JobId,
    pub kind: AnswerKind,
    pub engine: Option<EngineKind>,
    pub reason: String,
}

impl JobNote {
    pub fn of(answer: &Answer) -> Self {
        Self {
            job: answer.job.clone(),
            kind: answer.kind,
            engine: answer.engine,
            reason: answer.reason.clone(),
        }
    }
}

struct Waiting {
    user: String,
    since: Instant,
    answer: Answer,
}

/// Answers by job; each can be taken once, by the user who asked.
#[derive(Default)]
pub(super) struct Results(DashMap<JobId, Waiting>);

impl Results {
    pub(super) fn keep(&self, user: &str, answer: Answer) {
        let waiting = Waiting { user: user.to_owned(), since: Instant::now(), answer };
        self.0.insert(waiting.answer.job.clone(), waiting);
    }

    pub(super) fn take(&self, user: &str, job: &JobId) -> Result<Answer> {
        let taken = self.0.remove_if(job, |_, waiting| waiting.user == user);
        taken.map(|(_, waiting)| waiting.answer).ok_or_else(|| {
            Error::new(Code::UnknownObject, format!("no result of `{job}` is waiting"))
                .hint("a result can be fetched once, within five minutes; run the statement again")
        })
    }

    /// Forgets the answer, if it waits.
    pub(super) fn discard(&self, user: &str, job: &JobId) -> bool {
        self.0.remove_if(job, |_, waiting| waiting.user == user).is_some()
    }

    pub(super) fn sweep(&self) {
        self.0.retain(|_, waiting| waiting.since.elapsed() < UNFETCHED);
    }
}
