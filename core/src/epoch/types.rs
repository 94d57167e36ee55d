//! What is written down in the course of an epoch.

use crate::{Epoch, FencingToken, PipelineId, Positions, SplitId, SplitRange, Written};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A sink of a pipeline, by the part that it plays there.
pub type Participant = String;

/// The participant that holds the pipeline's result.
pub const TABLE: &str = "table";
/// The participant that holds what could not be processed.
pub const DEAD_LETTERS: &str = "dead_letters";

/// Step 1: what epoch `epoch` will do. A try again does exactly this again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub pipeline: PipelineId,
    pub epoch: Epoch,
    /// Token of the leader that wrote it.
    pub token: FencingToken,
    /// What is read; a split without new records is not in here.
    pub ranges: Vec<SplitRange>,
    /// Rows whose window ended at or before this (milliseconds since the Unix epoch) are late: the window's
    /// result is out already. The watermark that closed windows in the epoch before.
    pub late_before_ms: Option<i64>,
    /// Windows that end at or before this are closed in this epoch. From epochs before this one, so that a
    /// try again closes the same windows. `i64::MAX` closes all: a drain.
    pub close_before_ms: Option<i64>,
    /// Identifies the plan; a pipeline does not go on with another one by accident.
    pub fingerprint: String,
}

/// One file of keyed state in the checkpoint store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// Below the pipeline's folder in the checkpoint store.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
}

/// The state of one bucket of one operator: a base, then deltas in the order of their epochs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRef {
    /// Which stateful operator of the plan, e.g. `aggregate` or `dedup`.
    pub operator: String,
    pub bucket: u32,
    /// The epoch after which this is the state; executors cache by it.
    pub epoch: Epoch,
    pub files: Vec<StateFile>,
}

/// Row counts of an epoch. They add up:
/// `read = dead_letters + dropped + late + duplicates + accepted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Records read from the source.
    pub read: u64,
    /// Records that did not decode, or violated an expectation `ON VIOLATION DEAD LETTER`.
    pub dead_letters: u64,
    /// Rows that violated an expectation `ON VIOLATION DROP`.
    pub dropped: u64,
    /// Rows whose window was closed already.
    pub late: u64,
    /// Rows whose key was seen already.
    pub duplicates: u64,
    /// Rows that went on into the query.
    pub accepted: u64,
    /// Rows written to the table.
    pub written: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.dead_letters += other.dead_letters;
        self.dropped += other.dropped;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.accepted += other.accepted;
        self.written += other.written;
    }
}

/// What one instance of an operator did in one try of an epoch. Operators in the middle of a plan cannot
/// return rows of their own, so they hand in a report; the driver demands one of every split and bucket,
/// exactly once, before it decides the epoch. A lost or doubled task is seen there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// `ingest`, `aggregate`, `dedup`.
    pub operator: String,
    /// The split or the bucket.
    pub instance: String,
    #[serde(default)]
    pub counts: Counts,
    /// Highest event time among accepted rows, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub max_event_time_ms: Option<i64>,
    /// Dead letters written by this instance.
    #[serde(default)]
    pub dead_letters: Vec<Written>,
    /// The bucket's state after the epoch.
    #[serde(default)]
    pub state: Option<StateRef>,
}

/// Step 3: what the epoch did, decided once. It holds the whole state that the next epoch begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub pipeline: PipelineId,
    pub epoch: Epoch,
    pub token: FencingToken,
    /// Next position of every split ever read.
    pub positions: Positions,
    /// Highest event time of every split ever read, in milliseconds since the Unix epoch.
    pub max_event_time_ms: BTreeMap<SplitId, i64>,
    /// The watermark that closed windows in this epoch; what is at or before it is late from now on.
    pub closed_before_ms: Option<i64>,
    /// The watermark after this epoch; it closes windows in the next one.
    pub watermark_ms: Option<i64>,
    pub written: BTreeMap<Participant, Vec<Written>>,
    pub state: Vec<StateRef>,
    pub counts: Counts,
    /// Sum over all epochs so far.
    pub totals: Counts,
    pub fingerprint: String,
}
