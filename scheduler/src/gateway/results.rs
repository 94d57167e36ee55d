//! Answers between the call that starts a statement and the call that fetches it.

use crate::frontend::api::{Answer, AnswerKind};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
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
pub(super) struct Results(Mutex<HashMap<JobId, Waiting>>);

impl Results {
    pub(super) fn keep(&self, user: &str, answer: Answer) {
        let waiting = Waiting { user: user.to_owned(), since: Instant::now(), answer };
        self.0.lock().insert(waiting.answer.job.clone(), waiting);
    }

    /// The answer waits for another while.
    pub(super) fn renew(&self, user: &str, job: &JobId) -> Result<()> {
        match self.0.lock().get_mut(job).filter(|waiting| waiting.user == user) {
            Some(waiting) => {
                waiting.since = Instant::now();
                Ok(())
            }
            None => Err(none_waits(job)),
        }
    }

    pub(super) fn take(&self, user: &str, job: &JobId) -> Result<Answer> {
        self.remove(Some(user), job).ok_or_else(|| none_waits(job))
    }

    /// Forgets the answer, if it waits and is this user's, where one is named.
    pub(super) fn discard(&self, user: Option<&str>, job: &JobId) -> bool {
        self.remove(user, job).is_some()
    }

    fn remove(&self, user: Option<&str>, job: &JobId) -> Option<Answer> {
        let mut waiting = self.0.lock();
        let owner = &waiting.get(job)?.user;
        if user.is_some_and(|user| user != owner) {
            return None;
        }
        waiting.remove(job).map(|waiting| waiting.answer)
    }

    pub(super) fn sweep(&self) {
        self.0.lock().retain(|_, waiting| waiting.since.elapsed() < UNFETCHED);
    }
}

fn none_waits(job: &JobId) -> Error {
    Error::new(Code::UnknownObject, format!("no result of `{job}` is waiting"))
        .hint("a result can be fetched once, within five minutes; run the statement again")
}
