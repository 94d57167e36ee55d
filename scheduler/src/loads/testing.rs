//! A journal in memory that can die, a sink that remembers, and a clock that goes as far as it is told.

use super::*;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};
use tidemill_core::config::Config;
use tidemill_core::{
    Code, Commit, Error, Expect, FencingToken, Journal, Result, Sink, SinkCapabilities, SinkSpec, SinkWriter,
    Versioned, WriteScope, Written,
};
use tokio::sync::watch;

/// Where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    BeforePut(u64),
    AfterPut(u64),
}

#[derive(Debug, Default)]
pub(super) struct MemoryJournal {
    state: Mutex<State>,
    died: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, Versioned>,
    token: u64,
    version: u64,
    puts: u64,
    death: Option<Death>,
}

impl MemoryJournal {
    /// The process that writes from now on dies there; `None` lives.
    pub(super) fn plan(&self, death: Option<Death>) {
        let mut state = self.state.lock();
        (state.puts, state.death) = (0, death);
        self.died.send_replace(false);
    }

    /// Returns when the planned death came.
    pub(super) async fn dead(&self) {
        self.died.subscribe().wait_for(|died| *died).await.unwrap();
    }

    async fn die(&self) {
        self.died.send_replace(true);
        std::future::pending().await
    }

    fn write(&self, token: FencingToken, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        let mut state = self.state.lock();
        if token.0 < state.token {
            return Err(Error::new(Code::Fenced, "an older leader"));
        }
        let held = match (state.entries.get(key), expect) {
            (_, Expect::Anything) | (None, Expect::Absent) => true,
            (Some(entry), Expect::Version(version)) => entry.version == version,
            _ => false,
        };
        if !held {
            return Err(Error::new(Code::Conflict, key));
        }
        state.version += 1;
        let version = state.version;
        state.entries.insert(key.to_owned(), Versioned { value, version });
        Ok(version)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn acquire(&self) -> Result<FencingToken> {
        let mut state = self.state.lock();
        state.token += 1;
        Ok(FencingToken(state.token))
    }

    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        Ok(self.state.lock().entries.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        let state = self.state.lock();
        let found = state.entries.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    async fn put(&self, token: FencingToken, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        let (put, death) = {
            let mut state = self.state.lock();
            state.puts += 1;
            (state.puts, state.death)
        };
        if death == Some(Death::BeforePut(put)) {
            self.die().await;
        }
        let version = self.write(token, key, value, expect)?;
        if death == Some(Death::AfterPut(put)) {
            self.die().await;
        }
        Ok(version)
    }

    async fn delete(&self, token: FencingToken, key: &str, _expect: Expect) -> Result<()> {
        if token.0 < self.state.lock().token {
            return Err(Error::new(Code::Fenced, "an older leader"));
        }
        self.state.lock().entries.remove(key);
        Ok(())
    }
}

/// Goes on at once when someone sleeps, up to the horizon.
#[derive(Debug)]
pub(super) struct VirtualClock {
    now: Mutex<DateTime<Utc>>,
    horizon: watch::Sender<DateTime<Utc>>,
}

impl VirtualClock {
    pub(super) fn new(now: DateTime<Utc>) -> Arc<Self> {
        Arc::new(Self { now: Mutex::new(now), horizon: watch::Sender::new(now) })
    }

    pub(super) fn advance(&self, horizon: DateTime<Utc>) {
        self.horizon.send_replace(horizon);
    }

    /// As `advance`, and sets the time itself, as if nobody had been there meanwhile.
    pub(super) fn jump(&self, now: DateTime<Utc>) {
        *self.now.lock() = now;
        self.advance(now);
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.now.lock()
    }

    async fn sleep_until(&self, time: DateTime<Utc>) {
        self.horizon.subscribe().wait_for(|horizon| *horizon >= time).await.unwrap();
        let mut now = self.now.lock();
        *now = time.max(*now);
    }
}

/// What happens in a [`FakeSink`] and a [`FakeQuery`] in place of success, first to last.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    Error(Error),
    /// The work is done, and an error is reported.
    DoneThenError(Error),
}

#[derive(Debug, Default)]
pub(super) struct FakeSink {
    state: Mutex<SinkState>,
}

#[derive(Debug, Default)]
struct SinkState {
    /// Intervals whose rows are visible; twice when they are there twice.
    visible: Vec<String>,
    committed: BTreeSet<(String, u64)>,
    rows: BTreeMap<(String, u64), u64>,
    faults: Vec<Fault>,
    counts_off_by: u64,
    cannot_count: bool,
}

impl FakeSink {
    pub(super) fn visible(&self) -> Vec<String> {
        self.state.lock().visible.clone()
    }

    pub(super) fn fail(&self, faults: Vec<Fault>) {
        self.state.lock().faults = faults;
    }

    pub(super) fn miscount(&self, off_by: u64) {
        self.state.lock().counts_off_by = off_by;
    }

    pub(super) fn cannot_count(&self) {
        self.state.lock().cannot_count = true;
    }
}

#[async_trait]
impl Sink for FakeSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities { transactional: true, idempotent: true, upsert: false }
    }

    async fn prepare(&self, _schema: &SchemaRef) -> Result<()> {
        Ok(())
    }

    async fn writer(&self, _scope: &WriteScope, _schema: &SchemaRef) -> Result<Box<dyn SinkWriter>> {
        Err(Error::internal("the fake query writes nothing"))
    }

    async fn committed(&self, job: &str) -> Result<Option<u64>> {
        let state = self.state.lock();
        Ok(state.committed.iter().filter(|(committed, _)| committed == job).map(|(_, run)| *run).max())
    }

    /// Like a table that keeps only the newest run of a job: older ones count as committed.
    async fn commit(&self, job: &str, run: u64, written: &[Written]) -> Result<Commit> {
        let newest = self.committed(job).await?;
        let mut state = self.state.lock();
        let fault = if state.faults.is_empty() { None } else { Some(state.faults.remove(0)) };
        if let Some(Fault::Error(error)) = &fault {
            return Err(error.clone());
        }
        let fresh = newest < Some(run);
        if fresh {
            state.committed.insert((job.to_owned(), run));
            state.rows.insert((job.to_owned(), run), written.iter().map(|written| written.rows).sum());
            let intervals = written.iter().map(|written| written.descriptor["interval"].to_string());
            state.visible.extend(intervals);
        }
        match fault {
            Some(Fault::DoneThenError(error)) => Err(error),
            _ if fresh => Ok(Commit::Committed { version: run }),
            _ => Ok(Commit::AlreadyCommitted),
        }
    }

    async fn count(&self, job: &str, run: u64) -> Result<Option<u64>> {
        let state = self.state.lock();
        let rows = state.rows.get(&(job.to_owned(), run)).copied().unwrap_or(0);
        Ok((!state.cannot_count).then_some(rows + state.counts_off_by))
    }
}

/// Sinks by target: a factory is a plain function and has no other way to find one.
static SINKS: LazyLock<Mutex<HashMap<String, Arc<FakeSink>>>> = LazyLock::new(Mutex::default);

pub(super) fn fake_sink(target: &str) -> Arc<FakeSink> {
    SINKS.lock().entry(target.to_owned()).or_default().clone()
}

pub(super) fn sink_factory(spec: &SinkSpec, _config: &Config) -> Result<Arc<dyn Sink>> {
    Ok(fake_sink(&spec.target))
}

/// Gives 10 rows for every interval.
#[derive(Debug, Default)]
pub(super) struct FakeQuery {
    pub(super) faults: Mutex<Vec<Error>>,
}

#[async_trait]
impl RunQuery for FakeQuery {
    async fn stage(&self, _spec: &LoadSpec, interval: &Interval, scope: &WriteScope) -> Result<Vec<Written>> {
        let mut faults = self.faults.lock();
        if !faults.is_empty() {
            return Err(faults.remove(0));
        }
        let descriptor = serde_json::json!({ "interval": interval.to_string(), "task": scope.task });
        Ok(vec![Written { rows: 10, bytes: 100, descriptor }])
    }
}
