//! Looks after the tables that this process writes, without being asked.
//!
//! ```text
//! commits ─▶ which tables were written ─▶ facts ─▶ decide ─▶ checkpoint │ clean the log │ compact
//!                every `interval`             (pure, see `due`)   at most `concurrency` tables at a time
//! ```
//! It runs on the threads of heavy jobs, within a memory limit that all of it shares, and each round of compaction
//! waits until no user's heavy job does. Nothing is kept anywhere: after a restart the first commit to a table brings it back here. Whatever fails is
//! tried again with the next look; readers and writers never wait for it. Replaced files stay for VACUUM.

use super::due::{Action, Known, decide, due};
use super::{Compact, Optimizer, TargetSize};
use crate::admission::Background;
use futures::StreamExt;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;
use tidemill_core::config::Maintenance as Config;
use tidemill_core::{Code, Result};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The task, until it is stopped.
#[derive(Debug)]
pub(crate) struct Upkeep {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Upkeep {
    pub(crate) fn start(optimizer: Optimizer, config: Config, threads: &Background) -> Self {
        let stop = CancellationToken::new();
        let task = config.enabled.then(|| {
            let worker = Worker { optimizer, config, cleaned: parking_lot::Mutex::default() };
            threads.handle().spawn(worker.run(stop.clone()))
        });
        Self { stop, task: Mutex::new(task) }
    }

    /// Gives up what is under way; the files of what is not committed yet are left to VACUUM.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        if let Some(task) = self.task.lock().await.take() {
            let _ = task.await;
        }
    }
}

struct Worker {
    optimizer: Optimizer,
    config: Config,
    /// When a table's log was cleaned.
    cleaned: parking_lot::Mutex<HashMap<Url, Instant>>,
}

impl Worker {
    async fn run(self, stop: CancellationToken) {
        let worker = Arc::new(self);
        let mut waiting: BTreeSet<Url> = BTreeSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(worker.config.interval) => {}
            }
            let Ok(tables) = worker.optimizer.lake.maintenance() else { return };
            waiting.extend(tables.written());
            let round = futures::stream::iter(std::mem::take(&mut waiting))
                .map(|table| {
                    let worker = worker.clone();
                    async move { worker.again(table).await }
                })
                .buffer_unordered(worker.config.concurrency.max(1))
                .collect::<Vec<_>>();
            tokio::select! {
                () = stop.cancelled() => return,
                again = round => waiting.extend(again.into_iter().flatten()),
            }
        }
    }

    /// Tends a table; gives it back when something is left to do.
    async fn again(&self, table: Url) -> Option<Url> {
        match self.tend(&table).await {
            Ok(()) => None,
            Err(error) if matches!(error.code, Code::NotFound | Code::Unsupported) => {
                tracing::debug!(%table, %error, "a table is not looked after");
                None
            }
            Err(error) => {
                tracing::warn!(%table, %error, "a table is looked after again later");
                Some(table)
            }
        }
    }

    async fn tend(&self, table: &Url) -> Result<()> {
        let tables = self.optimizer.lake.maintenance()?;
        let facts = tables.facts(table).await?;
        let due_files = match facts.compacts {
            true => self.due_files(table).await?,
            false => 0,
        };
        let cleaned_secs_ago = self.cleaned.lock().get(table).map(|at| at.elapsed().as_secs());
        for action in decide(&facts, Known { cleaned_secs_ago, due_files }) {
            match action {
                Action::Checkpoint => tables.checkpoint(table).await?,
                Action::CleanLog => {
                    let removed = tables.clean_log(table).await?;
                    self.cleaned.lock().insert(table.clone(), Instant::now());
                    tracing::debug!(%table, removed, "log entries cleaned up");
                }
                Action::Compact => {
                    let report = self.optimizer.compact(table, &self.compaction()).await?;
                    let (from, to) = (report.files_removed(), report.files_added());
                    tracing::info!(%table, from, to, "small files compacted");
                }
            }
        }
        Ok(())
    }

    async fn due_files(&self, table: &Url) -> Result<usize> {
        let snapshot = self.optimizer.lake.snapshot(table).await?;
        snapshot.demand_writable()?;
        let target = TargetSize::of(&snapshot.properties()).unwrap_or(self.optimizer.target);
        Ok(due(snapshot.files(&self.optimizer.state, &[])?, target.0, self.config.compact_from_files).len())
    }

    fn compaction(&self) -> Compact {
        Compact {
            filters: Vec::new(),
            predicate: None,
            due_from: Some(self.config.compact_from_files),
            automatic: true,
        }
    }
}
