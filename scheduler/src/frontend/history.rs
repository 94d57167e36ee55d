//! Ended jobs in the journal, so that `tidemill.jobs` still shows them after a restart.
//!
//! Best effort, and never in the way of a query: what ended is written every few seconds, many jobs in one entry.
//! A crash loses the last seconds.

use super::jobs::{HISTORY, JobView, Jobs};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Expect, FencingToken, Journal, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PREFIX: &str = "jobs/";
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// Jobs of one entry; with texts of these lengths it stays well below the journal's limit.
const ENTRY: usize = 100;
const ENTRIES: u64 = HISTORY.div_ceil(ENTRY) as u64;
const TEXT_BYTES: usize = 2_000;

/// Writes in the background until it is stopped.
#[derive(Debug)]
pub(super) struct History {
    stop: CancellationToken,
    writing: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

struct Writer {
    journal: Arc<dyn Journal>,
    token: FencingToken,
    jobs: Jobs,
    /// The entry that is not full yet.
    number: u64,
    entry: Vec<JobView>,
    /// Whether the entry has jobs that the journal does not have.
    dirty: bool,
}

impl History {
    /// Gives `jobs` what earlier processes have kept, and keeps from now on.
    pub(super) async fn start(journal: Arc<dyn Journal>, token: FencingToken, jobs: Jobs) -> Result<Self> {
        let mut number = 0;
        let mut kept = Vec::new();
        for (key, entry) in journal.list(PREFIX).await? {
            number = number.max(key[PREFIX.len()..].parse::<u64>().unwrap_or(0));
            // Written by another version: a history that does not read is no reason not to start.
            kept.extend(serde_json::from_slice::<Vec<JobView>>(&entry.value).unwrap_or_default());
        }
        jobs.remember(kept);
        let mut writer = Writer { journal, token, jobs, number: number + 1, entry: Vec::new(), dirty: false };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let writing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(WRITE_EVERY);
            while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
                writer.write().await;
            }
            writer.write().await;
        });
        Ok(Self { stop, writing: parking_lot::Mutex::new(Some(writing)) })
    }

    /// Writes what is left.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        let writing = self.writing.lock().take();
        if let Some(writing) = writing {
            let _ = writing.await;
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Writer {
    async fn write(&mut self) {
        for job in self.jobs.unwritten() {
            self.entry.push(shortened(job));
            self.dirty = true;
            if self.entry.len() == ENTRY {
                self.put().await;
                self.entry.clear();
                self.forget(self.number.saturating_sub(ENTRIES)).await;
                self.number += 1;
            }
        }
        if self.dirty {
            self.put().await;
        }
    }

    async fn put(&mut self) {
        let written = async {
            let value = serde_json::to_vec(&self.entry)?;
            self.journal.put(self.token, &key(self.number), value.into(), Expect::Anything).await
        };
        match written.await {
            Ok(_) => self.dirty = false,
            Err(error) => tracing::warn!(%error, "ended jobs were not written to the journal"),
        }
    }

    async fn forget(&self, number: u64) {
        if number > 0
            && let Err(error) = self.journal.delete(self.token, &key(number), Expect::Anything).await
        {
            tracing::debug!(%error, "old jobs were not removed from the journal");
        }
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:012}")
}

fn shortened(mut job: JobView) -> JobView {
    cut(&mut job.sql);
    cut(&mut job.reason);
    if let Some(error) = &mut job.error {
        cut(&mut error.message);
        error.hint.iter_mut().chain(&mut error.context).for_each(cut);
    }
    job
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_BYTES));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::jobs::testing::open;
    use crate::journal::RedbJournal;

    async fn start(path: &std::path::Path) -> (Jobs, History) {
        let journal: Arc<dyn Journal> = Arc::new(RedbJournal::open(path).unwrap());
        let token = journal.acquire().await.unwrap();
        let jobs = Jobs::default();
        let history = History::start(journal, token, jobs.clone()).await.unwrap();
        (jobs, history)
    }

    #[tokio::test]
    async fn ended_jobs_are_there_after_a_restart_and_old_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.redb");
        let many = HISTORY + 2 * ENTRY;
        for round in 0..2 {
            let (jobs, history) = start(&path).await;
            for number in 0..many / 2 {
                open(&jobs, &format!("{round}-{number}"), &"ä".repeat(TEXT_BYTES), true).end(&Ok(()));
            }
            history.stop().await;
        }
        let (jobs, history) = start(&path).await;
        let list = jobs.list();
        assert_eq!(list.len(), HISTORY);
        assert_eq!(list[0].id.as_str(), format!("1-{}", many / 2 - 1));
        assert!(list[0].sql.ends_with('…') && list[0].sql.len() < TEXT_BYTES + 4);
        history.stop().await;
        drop(history);
    }
}
