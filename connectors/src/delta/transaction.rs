//! A change of a table, committed on top of whatever others committed meanwhile, or not at all.
//!
//! ```text
//! snapshot that was read ─▶ Transaction { actions, what they depend on }
//!   ┌▶ newest snapshot ─▶ each commit since ─┬─ ours, landed after all ─▶ done
//!   │                                        ├─ contradicts us ─▶ Code::Conflict
//!   │                                        └─ does not ─┐
//!   │             put-if-absent of the next version ◀─────┘
//!   └───────────── lost the race, or an error: look again, after a while
//! ```
//! Every entry carries a token of its own, since a put that failed may have landed all the same.

use super::commit::{Patience, landed};
use super::conflict::{self, Intent};
use super::error::from_delta;
use super::table::{Loaded, Table};
use super::vouched::Vouched;
use datafusion::prelude::SessionContext;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, CommitInfo, Transaction as Txn};
use deltalake_core::logstore::get_actions;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::Reads;
use uuid::Uuid;

/// Where an entry carries its token, as in Spark's entries.
const TOKEN: &str = "txnId";

/// A change that is worked out: everything but the version that it gets.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) read: Arc<Loaded>,
    pub(super) actions: Vec<Action>,
    pub(super) intent: Intent,
    /// Added files are looked into by these.
    pub(super) reads: Reads,
    pub(super) operation: String,
    pub(super) parameters: HashMap<String, Value>,
    pub(super) metrics: HashMap<String, Value>,
    /// `(application, number)`: committed at most once.
    pub(super) once: Option<(String, i64)>,
}

impl Transaction {
    /// The version that has the change.
    pub(super) async fn commit(self, table: &Arc<Table>) -> Result<u64> {
        let token = Uuid::new_v4().to_string();
        let mut patience = Patience::new();
        let mut checked = self.read.version();
        loop {
            let error = match self.attempt(table, &token, &mut checked).await {
                Ok(version) => return Ok(version),
                Err(Failure::Contradicted(why)) => {
                    let message = format!("{} is not committed: meanwhile {why}", self.operation);
                    return Err(Error::new(Code::Conflict, message)
                        .hint("run the statement again, so that it sees the newest rows"));
                }
                Err(Failure::Other(error)) => error,
            };
            match patience.wait(&error) {
                Some(wait) => {
                    tracing::debug!(operation = self.operation, %error, "a commit is tried again");
                    tokio::time::sleep(wait).await;
                }
                None => return self.landed_after_all(table, &token, checked).await?.ok_or(error),
            }
        }
    }

    /// The last try may have landed although it failed: of the entries that nobody has looked into yet, ours.
    async fn landed_after_all(&self, table: &Arc<Table>, token: &str, checked: u64) -> Result<Option<u64>> {
        let newest = table.demand().await?.version();
        for version in checked + 1..=newest {
            if entry(table, version).await?.iter().any(|action| carries(action, token)) {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    async fn attempt(
        &self,
        table: &Arc<Table>,
        token: &str,
        checked: &mut u64,
    ) -> std::result::Result<u64, Failure> {
        let newest = table.demand().await?;
        if newest.snapshot().metadata().id() != self.read.snapshot().metadata().id()
            || newest.version() < *checked
        {
            // Maybe by this very change.
            return match self.landed_after_all(table, token, *checked).await {
                Ok(Some(version)) => Ok(version),
                _ => Err(Failure::Contradicted("the table was replaced by another one".to_owned())),
            };
        }
        while *checked < newest.version() {
            let version = *checked + 1;
            let theirs = entry(table, version).await?;
            if theirs.iter().any(|action| carries(action, token)) {
                return Ok(version);
            }
            let ours = |action: &Action| match (action, &self.once) {
                (Action::Txn(txn), Some((app, number))) => txn.app_id == *app && txn.version >= *number,
                _ => false,
            };
            if theirs.iter().any(ours) {
                return Ok(version);
            }
            let added = conflict::check(&self.intent, &theirs).map_err(Failure::Contradicted)?;
            if self.would_have_read(table, &newest, added)? {
                return Err(Failure::Contradicted("rows were added that it would have seen".to_owned()));
            }
            *checked = version;
        }
        if let Some((app, number)) = &self.once
            && newest.transaction(table, app).await?.is_some_and(|newest| newest >= *number)
        {
            return Ok(newest.version());
        }
        self.put(table, &newest, token).await
    }

    async fn put(
        &self,
        table: &Arc<Table>,
        newest: &Arc<Loaded>,
        token: &str,
    ) -> std::result::Result<u64, Failure> {
        let mut info = CommitInfo {
            timestamp: Some(chrono::Utc::now().timestamp_millis()),
            operation: Some(self.operation.clone()),
            operation_parameters: Some(self.parameters.clone()),
            read_version: Some(self.read.version()),
            is_blind_append: Some(self.reads == Reads::Nothing && self.intent.removes.is_empty()),
            engine_info: Some(format!("Tidemill/{}", env!("CARGO_PKG_VERSION"))),
            ..CommitInfo::default()
        };
        info.info.insert(TOKEN.to_owned(), token.into());
        info.info.insert("operationMetrics".to_owned(), self.metrics.clone().into_iter().collect::<Value>());
        let mut actions = vec![Action::CommitInfo(info)];
        actions.extend(self.actions.iter().cloned());
        let mut properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false));
        if let Some((app, number)) = &self.once {
            let now = chrono::Utc::now().timestamp_millis();
            properties =
                properties.with_application_transaction(Txn::new_with_last_update(app, *number, Some(now)));
        }
        // Only looked at for tables that take appends alone.
        let kind = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let snapshot = Vouched::new(newest)?;
        let done = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&snapshot), table.log_store.clone(), kind)
            .await
            .map_err(|error| from_delta(error, &table.url))?;
        landed(table, Loaded::new(done.snapshot), done.version);
        Ok(done.version)
    }

    /// Whether one of the added files may hold rows that the change depends on.
    fn would_have_read(&self, table: &Table, newest: &Loaded, added: Vec<String>) -> Result<bool> {
        if added.is_empty() {
            return Ok(false);
        }
        let filters = match &self.reads {
            Reads::Nothing | Reads::Removed => return Ok(false),
            Reads::Everything => return Ok(true),
            Reads::Matching(filters) => filters,
        };
        let paths = newest.paths(table)?;
        // What was removed again since cannot be looked into.
        if added.iter().any(|path| !paths.contains(path)) {
            return Ok(true);
        }
        let added: HashSet<String> = added.into_iter().collect();
        let state = SessionContext::new().state();
        let keep = newest.provider(table)?.matching(&state, filters)?;
        Ok(paths.iter().zip(keep).any(|(path, keep)| keep && added.contains(path)))
    }
}

/// Why an attempt did not commit.
enum Failure {
    Contradicted(String),
    /// May have landed, may succeed the next time.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

pub(super) async fn entry(table: &Table, version: u64) -> Result<Vec<Action>> {
    let fail = |error| from_delta(error, &table.url);
    match table.log_store.read_commit_entry(version).await.map_err(fail)? {
        Some(bytes) => get_actions(version, &bytes).map_err(fail),
        None => Err(Error::new(Code::NotFound, format!("version {version} is no longer in the table's log"))
            .hint("run the statement again")),
    }
}

fn carries(action: &Action, token: &str) -> bool {
    match action {
        Action::CommitInfo(info) => info.info.get(TOKEN).and_then(Value::as_str) == Some(token),
        _ => false,
    }
}
