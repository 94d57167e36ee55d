//! One log entry for a run, once, however often it is tried.
//!
//! ```text
//!  ┌▶ newest snapshot ─▶ txn(job) >= run? ── yes ─▶ already committed
//!  │                          │ no
//!  │                          ▼
//!  │      put-if-absent of the next version: files + txn(job, run) ─▶ committed
//!  └──────────── any error: it may have landed all the same
//! ```
//! The check and the put are about the same snapshot: delta-rs tries each version only once here
//! (`with_max_retries(0)`), since its own retry would put the entry on top of a version that nobody looked into
//! for our transaction. What its conflict check would do for an append is done anew for each snapshot: that the
//! table is the one that was written for, and still asks for no more than we do.

use super::error::from_delta;
use super::features;
use super::rules;
use super::sink::{Added, Label};
use super::table::{Loaded, Table};
use super::vouched::Vouched;
use super::written;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, CommitInfo, Transaction};
use deltalake_core::protocol::{DeltaOperation, OutputMode, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Commit, Error, Result, Written};

/// Readers need no more than this many log entries besides a checkpoint. Written by us and not by delta-rs'
/// hook, which holds up the commit.
const CHECKPOINT_EVERY: u64 = 10;

/// What Spark calls an append, and an overwrite.
const WRITE: &str = "WRITE";

/// Tries before a commit that fails is given up for now; with the waits below about ten seconds.
const TRIES: usize = 20;
/// Tries of one that only comes too late, each time because somebody else has committed: some minutes.
const RACES: usize = 500;

/// Rows of a statement, in the words of the table's history; without them, an epoch of a stream.
#[derive(Debug)]
struct Told<'a> {
    label: &'a Label,
    rows: u64,
    bytes: u64,
}

/// `label` is what the entry says of itself; without one it is an epoch of a stream.
pub(super) async fn commit(
    table: &Arc<Table>,
    job: &str,
    run: u64,
    written: &[Written],
    label: Option<&Label>,
) -> Result<Commit> {
    let added = written
        .iter()
        .map(|written| Ok(serde_json::from_value(written.descriptor.clone())?))
        .collect::<Result<Vec<Added>>>()?;
    let told = label.map(|label| Told {
        label,
        rows: written.iter().map(|written| written.rows).sum(),
        bytes: written.iter().map(|written| written.bytes).sum(),
    });
    let version = i64::try_from(run).map_err(|_| Error::internal(format!("run {run} is too large")))?;
    let mut patience = Patience::new();
    loop {
        let (error, wait) = match attempt(table, job, version, &added, told.as_ref()).await {
            Ok(commit) => return Ok(commit),
            Err(Failure::Contradicted(error)) => (error, None),
            Err(Failure::Other(error)) => {
                let wait = patience.wait(&error);
                (error, wait)
            }
        };
        if let Some(wait) = wait {
            tracing::debug!(job, run, %error, "a commit is tried again");
            tokio::time::sleep(wait).await;
            continue;
        }
        // Whatever it was, the entry may have landed: nothing but the log itself can tell.
        let landed = match table.newest().await? {
            Some(loaded) => loaded.transaction(table, job).await?.is_some_and(|newest| newest >= version),
            None => false,
        };
        return if landed { Ok(Commit::AlreadyCommitted) } else { Err(error) };
    }
}

async fn attempt(
    table: &Arc<Table>,
    job: &str,
    run: i64,
    added: &[Added],
    told: Option<&Told<'_>>,
) -> std::result::Result<Commit, Failure> {
    let loaded = table.demand().await?;
    if loaded.transaction(table, job).await?.is_some_and(|newest| newest >= run) {
        return Ok(Commit::AlreadyCommitted);
    }
    check(&loaded, added).map_err(Failure::Contradicted)?;
    let mut actions: Vec<Action> = Vec::with_capacity(added.len() + 1);
    actions.extend(told.map(|told| Action::CommitInfo(told.info(&loaded, added.len()))));
    actions.extend(added.iter().map(|added| Action::Add(added.add.clone())));
    let properties = CommitProperties::default()
        .with_application_transaction(Transaction::new_with_last_update(
            job,
            run,
            Some(chrono::Utc::now().timestamp_millis()),
        ))
        .with_max_retries(0)
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false));
    let (operation, properties) = match told {
        // Only looked at for tables that take appends alone: the entry says itself what it is.
        Some(_) => (
            DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
            properties,
        ),
        None => (
            DeltaOperation::StreamingUpdate {
                output_mode: OutputMode::Append,
                query_id: job.to_owned(),
                epoch_id: run,
            },
            properties.with_metadata([("isBlindAppend".to_owned(), true.into())]),
        ),
    };
    let snapshot = Vouched::new(&loaded)?;
    let done = CommitBuilder::from(properties)
        .with_actions(actions)
        .build(Some(&snapshot), table.log_store.clone(), operation)
        .await
        .map_err(|error| from_delta(error, &table.url))?;
    landed(table, loaded.after(done.snapshot, job, run), done.version);
    Ok(Commit::Committed { version: done.version })
}

/// Why an attempt did not commit.
enum Failure {
    /// The table is not what was written for, and will not be again.
    Contradicted(Error),
    /// May have landed, may succeed the next time.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Told<'_> {
    fn info(&self, loaded: &Loaded, files: usize) -> CommitInfo {
        let partition_by = Value::from(loaded.partition_columns()).to_string();
        let mut parameters = HashMap::from([("partitionBy".to_owned(), Value::from(partition_by))]);
        if self.label.operation == WRITE {
            parameters.insert("mode".to_owned(), Value::from("Append"));
        }
        // Spark has numbers as text here.
        let metrics = [
            ("numFiles", files.to_string()),
            ("numOutputRows", self.rows.to_string()),
            ("numOutputBytes", self.bytes.to_string()),
        ];
        let metrics: Value = metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        CommitInfo {
            timestamp: Some(chrono::Utc::now().timestamp_millis()),
            operation: Some(self.label.operation.clone()),
            operation_parameters: Some(parameters),
            read_version: Some(loaded.version()),
            is_blind_append: Some(self.label.is_blind),
            engine_info: Some(format!("Tidemill/{}", env!("CARGO_PKG_VERSION"))),
            info: HashMap::from([("operationMetrics".to_owned(), metrics)]),
            ..CommitInfo::default()
        }
    }
}

/// How long to wait before each further try.
pub(super) struct Patience {
    failures: ExponentialBackoff,
    races: ExponentialBackoff,
}

impl Patience {
    pub(super) fn new() -> Self {
        let usual = ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(5));
        Self {
            failures: usual.with_max_delay(Duration::from_secs(1)).with_max_times(TRIES).build(),
            races: usual.with_max_delay(Duration::from_millis(250)).with_max_times(RACES).build(),
        }
    }

    /// `None` where there is no use in trying again.
    pub(super) fn wait(&mut self, error: &Error) -> Option<Duration> {
        match error.code {
            Code::Conflict => self.races.next(),
            _ if error.is_transient() => self.failures.next(),
            _ => None,
        }
    }
}

/// Keeps what a commit of ours left.
pub(super) fn landed(table: &Arc<Table>, loaded: Loaded, version: u64) {
    written::note(&table.url);
    let loaded = table.remember(loaded);
    if version.is_multiple_of(CHECKPOINT_EVERY) {
        // A snapshot that grew by updates gets slower with each; the next one begins at the checkpoint.
        table.forget();
        checkpoint(table.clone(), loaded.state().clone());
    }
}

fn check(loaded: &Loaded, added: &[Added]) -> Result<()> {
    let id = loaded.snapshot().metadata().id();
    if added.iter().any(|added| added.table != id) {
        let message = "the table that was written to is gone; there is another one in its place";
        return Err(Error::new(Code::NotFound, message)
            .hint("run the statement again; a pipeline has to be created anew"));
    }
    features::demand_writable(loaded.snapshot(), &loaded.schema())?;
    let rules = rules::texts(loaded.snapshot(), &loaded.schema());
    added.iter().try_for_each(|added| added.demand(&rules))
}

/// A checkpoint only saves time, so nothing depends on whether it succeeds.
fn checkpoint(table: Arc<Table>, state: DeltaTableState) {
    tokio::spawn(async move {
        let version = state.version();
        let mut snapshot = DeltaTable::new(table.log_store.clone());
        snapshot.state = Some(state);
        match deltalake_core::checkpoints::create_checkpoint(&snapshot, None).await {
            Ok(()) => tracing::debug!(table = %table.url, version, "checkpoint written"),
            Err(error) => tracing::warn!(table = %table.url, version, %error, "checkpoint not written"),
        }
    });
}
