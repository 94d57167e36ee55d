//! One run of a load, and what comes next in it. Pure.

use super::schedule::Interval;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidemill_core::Error;

/// How far a run is. Each step is written to the journal before the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its number and interval are fixed; the query may run.
    Intended,
    /// The manifest is decided: from here the run only goes forward.
    Staged,
    /// The sink has it.
    Committed,
    /// Done: the sink counts what was staged, or cannot count.
    Reconciled,
    /// Done, but the sink counts other rows than were staged.
    Mismatched,
    /// Given up before it was staged; nothing of it is visible.
    Failed,
}

/// What asked for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Schedule,
    /// `RUN LOAD`.
    Statement,
}

/// The last error of a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which try of this phase failed, from 1.
    pub attempt: u32,
    pub error: Error,
    /// None: not again by itself.
    pub next_retry: Option<DateTime<Utc>>,
}

/// A run, as the journal keeps it under `load_run/{load}/{run:020}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    pub load: String,
    /// From 1, growing in the order in which runs begin.
    pub run: u64,
    pub interval: Interval,
    pub origin: Origin,
    pub phase: Phase,
    /// Of the decided manifest.
    pub rows_staged: Option<u64>,
    pub bytes_staged: Option<u64>,
    /// Rows of this run that the sink counts; none where it cannot tell (`unproved`).
    pub rows_counted: Option<u64>,
    pub failure: Option<Failure>,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

impl RunRecord {
    pub fn intended(load: &str, run: u64, interval: Interval, origin: Origin, now: DateTime<Utc>) -> Self {
        Self {
            load: load.to_owned(),
            run,
            interval,
            origin,
            phase: Phase::Intended,
            rows_staged: None,
            bytes_staged: None,
            rows_counted: None,
            failure: None,
            started_at: now,
            finished_at: None,
        }
    }

    /// Its rows are in the sink.
    pub fn is_loaded(&self) -> bool {
        matches!(self.phase, Phase::Committed | Phase::Reconciled | Phase::Mismatched)
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Reconciled | Phase::Mismatched | Phase::Failed)
    }

    /// One word for people. `stuck` waits for the next fire, or for a person.
    pub fn status(&self) -> &'static str {
        match (self.phase, &self.failure) {
            (Phase::Reconciled, _) if self.rows_counted.is_none() => "unproved",
            (Phase::Reconciled, _) => "reconciled",
            (Phase::Mismatched, _) => "mismatched",
            (Phase::Failed, _) => "failed",
            (_, Some(Failure { next_retry: None, .. })) => "stuck",
            (_, Some(_)) => "retrying",
            (Phase::Intended, None) => "running",
            (Phase::Staged, None) => "staged",
            (Phase::Committed, None) => "committed",
        }
    }
}

/// What to do next with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run the query (again), and decide its manifest.
    Stage,
    /// A manifest was decided, and the journal does not say so yet.
    AdoptManifest,
    /// Roll forward: commit the decided manifest (again).
    Commit,
    /// Compare the counts (again).
    Reconcile,
    Wait(DateTime<Utc>),
    /// Tries are used up, but what was decided must go forward one day.
    Stuck,
    Finished,
}

/// Decides from what is known, also after a restart at any point. `manifest_exists` matters only while the run
/// is intended.
pub fn next_step(record: &RunRecord, manifest_exists: bool, now: DateTime<Utc>) -> Step {
    if record.is_finished() {
        return Step::Finished;
    }
    match &record.failure {
        Some(Failure { next_retry: None, .. }) => return Step::Stuck,
        Some(Failure { next_retry: Some(time), .. }) if *time > now => return Step::Wait(*time),
        _ => {}
    }
    match record.phase {
        Phase::Intended if manifest_exists => Step::AdoptManifest,
        Phase::Intended => Step::Stage,
        Phase::Staged => Step::Commit,
        Phase::Committed => Step::Reconcile,
        Phase::Reconciled | Phase::Mismatched | Phase::Failed => Step::Finished,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;
    use tidemill_core::Code;

    fn record(phase: Phase) -> RunRecord {
        let now = DateTime::UNIX_EPOCH;
        let interval = Interval::new(now, now + TimeDelta::hours(1)).unwrap();
        RunRecord { phase, ..RunRecord::intended("l", 1, interval, Origin::Schedule, now) }
    }

    #[test]
    fn a_restart_runs_again_or_rolls_forward() {
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(next_step(&record(Phase::Intended), false, now), Step::Stage);
        assert_eq!(next_step(&record(Phase::Intended), true, now), Step::AdoptManifest);
        assert_eq!(next_step(&record(Phase::Staged), true, now), Step::Commit);
        assert_eq!(next_step(&record(Phase::Committed), true, now), Step::Reconcile);
        for phase in [Phase::Reconciled, Phase::Mismatched, Phase::Failed] {
            assert_eq!(next_step(&record(phase), true, now), Step::Finished);
        }
    }

    #[test]
    fn a_failure_waits_then_goes_on_where_it_was() {
        let now = DateTime::UNIX_EPOCH;
        let later = now + TimeDelta::seconds(9);
        let failure = |next_retry| {
            Some(Failure { attempt: 1, error: Error::new(Code::Unreachable, "away"), next_retry })
        };
        let mut run = record(Phase::Staged);
        run.failure = failure(Some(later));
        assert_eq!(next_step(&run, true, now), Step::Wait(later));
        assert_eq!(run.status(), "retrying");
        assert_eq!(next_step(&run, true, later), Step::Commit);
        run.failure = failure(None);
        assert_eq!(next_step(&run, true, later), Step::Stuck);
        assert_eq!(run.status(), "stuck");
    }

    #[test]
    fn rows_that_no_sink_can_count_are_called_unproved() {
        let mut run = record(Phase::Reconciled);
        assert_eq!(run.status(), "unproved");
        run.rows_counted = Some(0);
        assert_eq!(run.status(), "reconciled");
    }
}
