//! What the journal holds of a pipeline.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemill_core::epoch::{Counts, Manifest};
use tidemill_core::{Epoch, Error, PipelineId, Positions, SinkSpec};
use tidemill_sql::statement::Trigger;
use tidemill_sql::streaming::StreamingDefinition;

/// What a pipeline is meant to do, or why it does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Running,
    Paused,
    /// Reads what is there, closes all windows, then is `Drained`.
    Draining,
    Drained,
    /// `available_now` has read everything that was there.
    Finished,
    Failed(Error),
}

impl Status {
    pub fn name(&self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Draining => "draining",
            Status::Drained => "drained",
            Status::Finished => "finished",
            Status::Failed(_) => "failed",
        }
    }

    /// Whether a driver has work to do.
    pub fn is_active(&self) -> bool {
        matches!(self, Status::Running | Status::Draining)
    }
}

/// `pipeline/{name}` in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineRecord {
    pub id: PipelineId,
    pub name: String,
    pub definition: StreamingDefinition,
    pub max_records_per_epoch: u64,
    pub table: SinkSpec,
    pub dead_letters: SinkSpec,
    /// Where splits that were never read begin.
    pub start: Positions,
    pub status: Status,
}

impl PipelineRecord {
    /// Identifies everything that state depends on: the query with its source and buckets, and how rows are
    /// hashed into buckets, which DataFusion keeps stable within one minor version only.
    pub fn fingerprint(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let definition = &self.definition;
        let mut hasher = DefaultHasher::new();
        definition.pipeline.query.hash(&mut hasher);
        definition.buckets.hash(&mut hasher);
        definition.source.schema.hash(&mut hasher);
        for expectation in &definition.pipeline.expectations {
            (&expectation.name, &expectation.condition).hash(&mut hasher);
        }
        datafusion::DATAFUSION_VERSION.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    pub fn trigger(&self) -> Trigger {
        self.definition.pipeline.trigger
    }

    /// The least time between the beginnings of two epochs.
    pub fn interval(&self) -> Duration {
        match self.trigger() {
            Trigger::EveryMs(millis) => Duration::from_millis(millis),
            Trigger::Continuous | Trigger::AvailableNow => Duration::ZERO,
        }
    }
}

/// One epoch, as `tidemill.epochs` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    pub epoch: Epoch,
    /// Milliseconds since the Unix epoch.
    pub finished_at_ms: i64,
    pub duration_ms: u64,
    pub counts: Counts,
    pub watermark_ms: Option<i64>,
    /// How often it was tried.
    pub tries: u32,
}

impl EpochRecord {
    pub(super) fn new(manifest: &Manifest, took: Duration, tries: u32) -> Self {
        Self {
            epoch: manifest.epoch,
            finished_at_ms: chrono::Utc::now().timestamp_millis(),
            duration_ms: took.as_millis() as u64,
            counts: manifest.counts,
            watermark_ms: manifest.watermark_ms,
            tries,
        }
    }
}
