//! Drives one pipeline: does the step that the protocol names, again and again.
//!
//! ```text
//! facts ─▶ recover ─┬─ PlanNext ─▶ next_intent ─▶ journal ─┐
//!                   ├─ Rerun ────────────────────▶ journal ─┴▶ run ─▶ decide ─▶ commit ─▶ advance
//!                   ├─ Commit, Advance ───────────────────────────────────────▶ commit ─▶ advance
//!                   └─ Stop
//! ```
//! Between two epochs that went well the driver trusts its memory of the last manifest; after any error it
//! gathers the facts anew.

use super::ledger::Ledger;
use super::record::EpochRecord;
use super::runner::EpochRunner;
use super::{PipelineRecord, Status};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_core::epoch::{
    Action, DEAD_LETTERS, Facts, Intent, Manifest, Participant, Planning, TABLE, drain_intent, is_drained,
    next_intent, recover,
};
use tidemill_core::{Available, Code, Error, Result, Sink, Source, SplitId};
use tidemill_sql::statement::Trigger;
use tokio::sync::watch;

/// How long an idle pipeline waits before it asks its source again.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// First and longest wait after a transient error.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(15));
/// Epochs that are kept for `tidemill.epochs`.
const HISTORY: usize = 1000;

/// What a pipeline is doing, for everybody to look at.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) last: Option<Manifest>,
    pub(super) available: BTreeMap<SplitId, Available>,
    pub(super) history: VecDeque<EpochRecord>,
    /// The transient error that is being waited out.
    pub(super) trouble: Option<Error>,
}

pub(super) struct Driver {
    pub(super) record: PipelineRecord,
    pub(super) ledger: Ledger,
    pub(super) runner: Arc<dyn EpochRunner>,
    pub(super) source: Arc<dyn Source>,
    pub(super) sinks: BTreeMap<Participant, Arc<dyn Sink>>,
    pub(super) observed: Arc<Mutex<Observed>>,
    /// What the pipeline is asked to do; a change is taken up between two epochs.
    pub(super) wanted: watch::Receiver<Status>,
}

/// What one step came to.
enum Step {
    Epoch,
    Idle,
    End(Status),
}

impl Driver {
    /// Runs until it is asked to stop, is at its end, or cannot go on; says which.
    pub(super) async fn run(mut self) -> Status {
        let mut certain = false;
        let mut snapshot = None;
        let mut backoff = BACKOFF.0;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if !wanted.is_active() {
                return wanted;
            }
            let began = Instant::now();
            match self.step(&wanted, certain, &mut snapshot).await {
                Ok(Step::End(status)) => return status,
                Ok(step) => {
                    certain = true;
                    backoff = BACKOFF.0;
                    self.observed.lock().trouble = None;
                    let pause = match step {
                        Step::Idle => self.record.interval().max(IDLE_POLL),
                        _ => self.record.interval().saturating_sub(began.elapsed()),
                    };
                    self.rest(pause).await;
                }
                Err(error) if error.is_transient() => {
                    certain = false;
                    tracing::warn!(pipeline = %self.record.name, %error, "epoch failed, trying again");
                    self.observed.lock().trouble = Some(error);
                    self.rest(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
                Err(error) => {
                    tracing::error!(pipeline = %self.record.name, %error, "pipeline stopped");
                    return Status::Failed(error.context(format!("pipeline `{}`", self.record.name)));
                }
            }
        }
    }

    /// Waits, unless something else is wanted first.
    async fn rest(&mut self, pause: Duration) {
        if !pause.is_zero() {
            let _ = tokio::time::timeout(pause, self.wanted.changed()).await;
        }
    }

    async fn step(
        &self,
        wanted: &Status,
        certain: bool,
        snapshot: &mut Option<BTreeMap<SplitId, Available>>,
    ) -> Result<Step> {
        if !certain && self.settle().await? {
            return Ok(Step::Epoch);
        }
        let last = self.observed.lock().last.clone();
        // `available_now` and a drain read what was there when they began, or they might never end.
        let bounded = self.record.trigger() == Trigger::AvailableNow || *wanted == Status::Draining;
        let available = match (bounded, &snapshot) {
            (true, Some(taken)) => taken.clone(),
            _ => self.source.available().await?,
        };
        if bounded && snapshot.is_none() {
            *snapshot = Some(available.clone());
        }
        self.observed.lock().available = available.clone();
        let intent = next_intent(&Planning {
            pipeline: &self.record.id,
            token: self.ledger.token(),
            fingerprint: &self.record.fingerprint(),
            last: last.as_ref(),
            start: &self.record.start,
            available: &available,
            max_records: self.record.max_records_per_epoch,
        })?;
        if let Some(intent) = intent {
            self.epoch(intent, last.as_ref()).await?;
            return Ok(Step::Epoch);
        }
        if *wanted == Status::Draining {
            let fingerprint = self.record.fingerprint();
            let drain = drain_intent(&self.record.id, self.ledger.token(), &fingerprint, last.as_ref())?;
            if let Some(intent) = drain {
                self.epoch(intent, last.as_ref()).await?;
            }
            return Ok(Step::End(Status::Drained));
        }
        if last.as_ref().is_some_and(is_drained) {
            return Ok(Step::End(Status::Drained));
        }
        if self.record.trigger() == Trigger::AvailableNow {
            return Ok(Step::End(Status::Finished));
        }
        Ok(Step::Idle)
    }

    /// Finishes what an earlier leader or an earlier try began. True when it had to run an epoch.
    async fn settle(&self) -> Result<bool> {
        let mut ran = false;
        loop {
            let facts = self.facts().await?;
            let previous = self.ledger.manifest(facts.done).await?;
            self.observed.lock().last = previous.clone();
            match recover(&facts) {
                Action::PlanNext => return Ok(ran),
                Action::Rerun(intent) => {
                    self.epoch(intent, previous.as_ref()).await?;
                    ran = true;
                }
                Action::Commit { missing, .. } => {
                    let manifest =
                        facts.manifest.ok_or_else(|| Error::internal("a commit without a manifest"))?;
                    self.commit(&manifest, &missing).await?;
                }
                Action::Advance(epoch) => self.ledger.advance(epoch).await?,
                Action::Stop(error) => return Err(error),
            }
        }
    }

    /// In the order that [`Facts`] demands.
    async fn facts(&self) -> Result<Facts> {
        let done = self.ledger.done().await?;
        let intent = self.ledger.intent().await?;
        let mut committed = BTreeMap::new();
        for (participant, sink) in &self.sinks {
            committed.insert(participant.clone(), sink.committed(self.record.id.as_str()).await?);
        }
        let manifest = self.ledger.manifest(done.next()).await?;
        Ok(Facts {
            pipeline: self.record.id.clone(),
            token: self.ledger.token(),
            fingerprint: self.record.fingerprint(),
            done,
            intent,
            manifest,
            committed,
        })
    }

    /// All five steps of one epoch.
    async fn epoch(&self, intent: Intent, previous: Option<&Manifest>) -> Result<()> {
        let began = Instant::now();
        self.ledger.intend(&intent).await?;
        let manifest = self.runner.run(&self.record, &intent, previous).await?;
        let manifest = self.ledger.decide(manifest).await?;
        let participants: Vec<Participant> = manifest.written.keys().cloned().collect();
        self.commit(&manifest, &participants).await?;
        self.ledger.advance(manifest.epoch).await?;
        if let Some(previous) = previous {
            self.ledger.sweep_state(previous, &manifest).await;
        }
        let mut observed = self.observed.lock();
        observed.history.push_back(EpochRecord::new(&manifest, began.elapsed(), 1));
        if observed.history.len() > HISTORY {
            observed.history.pop_front();
        }
        observed.last = Some(manifest);
        Ok(())
    }

    async fn commit(&self, manifest: &Manifest, participants: &[Participant]) -> Result<()> {
        for participant in participants {
            let (Some(sink), Some(written)) =
                (self.sinks.get(participant), manifest.written.get(participant))
            else {
                let message = format!("manifest of epoch {} names no sink `{participant}`", manifest.epoch);
                return Err(Error::new(Code::Corrupt, message));
            };
            sink.commit(self.record.id.as_str(), manifest.epoch.0, written)
                .await
                .map_err(|error| error.context(format!("committing to {participant}")))?;
        }
        Ok(())
    }
}

/// The sinks of a pipeline by the part that they play.
pub(super) fn participants(
    table: Arc<dyn Sink>,
    dead_letters: Arc<dyn Sink>,
) -> BTreeMap<Participant, Arc<dyn Sink>> {
    BTreeMap::from([(TABLE.to_owned(), table), (DEAD_LETTERS.to_owned(), dead_letters)])
}
