//! How operators in the middle of a plan tell the driver what they did.
//!
//! In the driver's own process a report is pushed onto the try's list. Elsewhere it is a small file in the
//! checkpoint store, put only if absent: a second instance of the same work is an error, not a second report.

use crate::Services;
use crate::epoch::EpochScope;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parking_lot::Mutex;
use std::collections::HashMap;
use tidemill_core::epoch::TaskReport;
use tidemill_core::{Code, Error, Result};

/// The tries that this process drives, with the reports handed in so far.
#[derive(Debug, Default)]
pub struct ReportDesk {
    tries: Mutex<HashMap<String, Vec<TaskReport>>>,
}

impl ReportDesk {
    /// Begins to take reports for a try.
    pub fn open(&self, scope: &EpochScope) {
        self.tries.lock().insert(scope.attempt.clone(), Vec::new());
    }

    /// Ends it, and returns what was handed in within this process.
    pub fn close(&self, scope: &EpochScope) -> Vec<TaskReport> {
        self.tries.lock().remove(&scope.attempt).unwrap_or_default()
    }

    fn push(&self, scope: &EpochScope, report: &TaskReport) -> bool {
        match self.tries.lock().get_mut(&scope.attempt) {
            Some(reports) => {
                reports.push(report.clone());
                true
            }
            None => false,
        }
    }
}

impl Services {
    /// Hands in a report, here or through the checkpoint store.
    pub async fn report(&self, scope: &EpochScope, report: TaskReport) -> Result<()> {
        if self.reports.push(scope, &report) {
            return Ok(());
        }
        let (store, root) = self.checkpoints()?;
        let name = format!("{}-{}.json", report.operator, report.instance.replace('/', "~"));
        let body = PutPayload::from(serde_json::to_vec(&report)?);
        let put = store.put_opts(&scope.reports(&root).join(name), body, PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { path, .. }) => {
                let message = format!("two tasks did the same work: there is a report {path} already");
                Err(Error::new(Code::WorkerLost, message))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All reports of a try: those of this process and those from elsewhere.
    pub async fn collect_reports(&self, scope: &EpochScope, elsewhere: bool) -> Result<Vec<TaskReport>> {
        let mut reports = self.reports.close(scope);
        if elsewhere {
            let (store, root) = self.checkpoints()?;
            let found: Vec<_> = store.list(Some(&scope.reports(&root))).try_collect().await?;
            let mut read = futures::stream::iter(found)
                .map(|meta| {
                    let store = store.clone();
                    async move { store.get(&meta.location).await?.bytes().await }
                })
                .buffer_unordered(16);
            while let Some(body) = read.try_next().await? {
                reports.push(serde_json::from_slice(&body)?);
            }
        }
        Ok(reports)
    }

    /// Throws the report files of a try away: they are worth nothing once the epoch is decided.
    pub async fn sweep_reports(&self, scope: &EpochScope) -> Result<()> {
        let (store, root) = self.checkpoints()?;
        let found = store.list(Some(&scope.reports(&root))).map_ok(|meta| meta.location).boxed();
        store.delete_stream(found).try_collect::<Vec<_>>().await?;
        Ok(())
    }
}
