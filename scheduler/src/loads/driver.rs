//! Acts for one load: takes runs through their steps, and starts those that are due.

use super::book::Book;
use super::clock::Clock;
use super::manifest::{LoadManifest, Manifests};
use super::run::{Failure, Origin, Phase, RunRecord, Step, next_step};
use super::schedule::{Interval, Schedule, add, backfill};
use super::service::{RunOutcome, RunQuery};
use super::spec::Load;
use chrono::{DateTime, Utc};
use std::sync::Arc;
use tidemill_core::{Code, ConnectorRegistry, Error, Result, WriteScope};

/// What every load of this process uses.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    pub(super) book: Book,
    pub(super) manifests: Manifests,
    pub(super) connectors: ConnectorRegistry,
    pub(super) runner: Arc<dyn RunQuery>,
    pub(super) clock: Arc<dyn Clock>,
}

#[derive(Debug)]
pub(super) struct Driver {
    tools: Tools,
    load: Load,
    schedule: Option<Schedule>,
    /// What the journal says, read once and kept: this process is its only writer.
    runs: Option<Runs>,
    /// After a failure the schedule waits for its next fire.
    not_before: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Runs {
    next: u64,
    loaded: Vec<Interval>,
    open: Option<RunRecord>,
}

impl Driver {
    pub(super) fn new(tools: Tools, load: Load) -> Result<Self> {
        let schedule = load.spec.schedule()?;
        Ok(Self { tools, load, schedule, runs: None, not_before: None })
    }

    /// Does the next thing that is due, if anything is, and says when to come back; `None` means when told to.
    /// Fails only where the journal does, or where another leader took over.
    pub(super) async fn work(&mut self, paused: bool) -> Result<Option<DateTime<Utc>>> {
        let now = self.tools.clock.now();
        let waiting = self.not_before.filter(|time| *time > now);
        if let Some(open) = self.runs().await?.open.clone() {
            if open.status() == "stuck" && waiting.is_some() {
                return Ok(waiting);
            }
            self.resume(open).await?;
            return self.next_wake(paused);
        }
        let Some(schedule) = self.schedule.clone().filter(|_| !paused) else { return Ok(None) };
        if waiting.is_some() {
            return Ok(waiting);
        }
        let start = self.load.start;
        let due = schedule.due(start, &self.runs().await?.loaded, now, 1)?;
        if let Some(interval) = due.first() {
            self.begin(*interval, Origin::Schedule).await?;
        }
        self.next_wake(paused)
    }

    /// `RUN LOAD`: loads what of `asked` is not loaded yet. Ends at the first run that fails.
    pub(super) async fn run_now(&mut self, asked: Interval) -> Result<RunOutcome> {
        if asked.to > self.tools.clock.now() {
            let message = format!("the interval {asked} ends in the future");
            return Err(Error::new(Code::InvalidStatement, message)
                .hint("rows that come later would never be loaded; end it now or earlier"));
        }
        if let Some(open) = self.runs().await?.open.clone() {
            // Sinks take runs in order: what was staged earlier goes first.
            succeeded(self.resume(open).await?)?;
        }
        let known = self.tools.book.runs(&self.load.spec.name).await?;
        let already =
            known.into_iter().filter(|run| run.is_loaded() && run.interval.overlaps(&asked)).collect();
        let mut outcome = RunOutcome { loaded: Vec::new(), already };
        let schedule = self.schedule.clone();
        for interval in backfill(schedule.as_ref(), asked, &self.runs().await?.loaded)? {
            outcome.loaded.push(succeeded(self.begin(interval, Origin::Statement).await?)?);
        }
        Ok(outcome)
    }

    /// Forgets what was read from the journal, after a write of which nobody knows whether it arrived.
    pub(super) fn forget(&mut self) {
        self.runs = None;
    }

    fn next_wake(&self, paused: bool) -> Result<Option<DateTime<Utc>>> {
        let now = self.tools.clock.now();
        match (&self.schedule, &self.runs, self.not_before.filter(|time| *time > now)) {
            (_, _, Some(time)) => Ok(Some(time)),
            (Some(schedule), Some(runs), None) if !paused => {
                let more = !schedule.due(self.load.start, &runs.loaded, now, 1)?.is_empty();
                if more { Ok(Some(now)) } else { schedule.fire_after(now).map(Some) }
            }
            _ => Ok(None),
        }
    }

    async fn runs(&mut self) -> Result<&mut Runs> {
        if self.runs.is_none() {
            let records = self.tools.book.runs(&self.load.spec.name).await?;
            let mut runs = Runs { next: 1, loaded: Vec::new(), open: None };
            for record in records {
                runs.next = record.run + 1;
                if record.is_loaded() {
                    add(&mut runs.loaded, record.interval);
                }
                if !record.is_finished() {
                    runs.open = Some(record);
                }
            }
            self.runs = Some(runs);
        }
        self.runs.as_mut().ok_or_else(|| Error::internal("a load without its runs"))
    }

    async fn begin(&mut self, interval: Interval, origin: Origin) -> Result<RunRecord> {
        let now = self.tools.clock.now();
        let name = self.load.spec.name.clone();
        let runs = self.runs().await?;
        let record = RunRecord::intended(&name, runs.next, interval, origin, now);
        self.tools.book.put_run(&record).await?;
        if let Some(runs) = &mut self.runs {
            runs.next += 1;
        }
        self.finish(record).await
    }

    /// Goes on with a run that was left open, with all its tries anew when they were used up.
    async fn resume(&mut self, mut record: RunRecord) -> Result<RunRecord> {
        if record.status() == "stuck" {
            record.failure = None;
        }
        self.finish(record).await
    }

    async fn finish(&mut self, record: RunRecord) -> Result<RunRecord> {
        let record = self.drive(record).await?;
        let failed = !record.is_loaded() || !record.is_finished();
        let now = self.tools.clock.now();
        self.not_before = match (&self.schedule, failed) {
            (Some(schedule), true) => Some(schedule.fire_after(now)?),
            _ => None,
        };
        let runs = self.runs().await?;
        if record.is_loaded() {
            add(&mut runs.loaded, record.interval);
        }
        runs.open = if record.is_finished() { None } else { Some(record.clone()) };
        Ok(record)
    }

    /// Takes a run as far as it goes: to its end, or until its tries are used up.
    async fn drive(&self, mut record: RunRecord) -> Result<RunRecord> {
        loop {
            let now = self.tools.clock.now();
            match next_step(&record, false, now) {
                Step::Finished | Step::Stuck => return Ok(record),
                Step::Wait(time) => self.tools.clock.sleep_until(time).await,
                _ => {
                    match self.step(&mut record).await {
                        Ok(()) => {}
                        Err(error) if error.code == Code::Fenced => return Err(error),
                        Err(error) => self.note(&mut record, error),
                    }
                    self.tools.book.put_run(&record).await?;
                }
            }
        }
    }

    /// One step of the protocol. On success the record says so, and is not yet written.
    async fn step(&self, record: &mut RunRecord) -> Result<()> {
        let (load, tools) = (&self.load, &self.tools);
        let manifest = tools.manifests.read(&load.id, record.run).await?;
        match (next_step(record, manifest.is_some(), tools.clock.now()), manifest) {
            (Step::Stage, _) => {
                let scope = WriteScope {
                    job: load.id.clone(),
                    run: record.run,
                    task: uuid::Uuid::new_v4().simple().to_string(),
                };
                let written = tools.runner.stage(&load.spec, &record.interval, &scope).await?;
                let interval = record.interval;
                let manifest = LoadManifest { load: load.id.clone(), run: record.run, interval, written };
                staged(record, &tools.manifests.decide(manifest).await?);
            }
            (Step::AdoptManifest, Some(manifest)) => staged(record, &manifest),
            (Step::Commit, Some(manifest)) => {
                let sink = tools.connectors.sink(&load.spec.sink)?;
                sink.commit(&load.id, record.run, &manifest.written).await?;
                record.phase = Phase::Committed;
                record.failure = None;
            }
            (Step::Commit, None) => {
                let message = format!("the manifest of run {} of load `{}` is gone", record.run, record.load);
                return Err(Error::new(Code::Corrupt, message)
                    .hint("restore the checkpoint store, or DROP LOAD and create it anew"));
            }
            (Step::Reconcile, _) => {
                let sink = tools.connectors.sink(&load.spec.sink)?;
                let counted = sink.count(&load.id, record.run).await?;
                self.reconcile(record, counted);
            }
            (Step::AdoptManifest | Step::Wait(_) | Step::Stuck | Step::Finished, _) => {}
        }
        Ok(())
    }

    fn reconcile(&self, record: &mut RunRecord, counted: Option<u64>) {
        let staged = record.rows_staged.unwrap_or(0);
        record.rows_counted = counted;
        record.finished_at = Some(self.tools.clock.now());
        match counted {
            Some(counted) if counted != staged => {
                let message = format!(
                    "run {} of load `{}` staged {staged} rows, `{}` holds {counted} of them",
                    record.run, record.load, self.load.spec.sink.target
                );
                let error = Error::new(Code::ReconciliationFailed, message)
                    .hint("see whether someone else deletes or copies rows of the target");
                tracing::error!(%error, load = %record.load, run = record.run, "reconciliation failed");
                record.failure = Some(Failure { attempt: 1, error, next_retry: None });
                record.phase = Phase::Mismatched;
            }
            _ => {
                record.failure = None;
                record.phase = Phase::Reconciled;
            }
        }
    }

    fn note(&self, record: &mut RunRecord, error: Error) {
        let now = self.tools.clock.now();
        let attempt = record.failure.as_ref().map_or(0, |failure| failure.attempt) + 1;
        let delay = if error.is_transient() { self.load.spec.retries.delay(attempt) } else { None };
        let next_retry =
            delay.and_then(|delay| now.checked_add_signed(chrono::TimeDelta::from_std(delay).ok()?));
        tracing::warn!(%error, load = %record.load, run = record.run, attempt, ?next_retry, "a load failed");
        record.failure = Some(Failure { attempt, error, next_retry });
        if next_retry.is_none() && record.phase == Phase::Intended {
            record.phase = Phase::Failed;
            record.finished_at = Some(now);
        }
    }
}

fn staged(record: &mut RunRecord, manifest: &LoadManifest) {
    record.phase = Phase::Staged;
    record.rows_staged = Some(manifest.rows());
    record.bytes_staged = Some(manifest.bytes());
    record.failure = None;
}

/// The record, or the error with which it ended.
fn succeeded(record: RunRecord) -> Result<RunRecord> {
    match record.failure {
        Some(failure) => {
            let place = format!("run {} of load `{}` for {}", record.run, record.load, record.interval);
            Err(failure.error.context(place))
        }
        None => Ok(record),
    }
}
