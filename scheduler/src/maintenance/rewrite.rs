//! What compaction and clustering share: where a plan runs, and how its rows are written.

use crate::admission::{Gate, Lane, Permit, Priority, Request};
use crate::engines::Engines;
use crate::frontend::{lake_sink, new_job};
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Result, WriteScope, Written};
use tidemill_engine::exec::{WriteExec, WriteSpec, collect_written};
use tidemill_engine::{Engine, JobKind, JobSpec, LakeFormat};
use url::Url;

/// The property by which a table asks for files of a size.
const TARGET_PROPERTY: &str = "delta.targetFileSize";

/// Bytes that a file should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TargetSize(pub(crate) u64);

impl TargetSize {
    /// What the table asks for: a number of bytes, or one with a unit such as `256mb`.
    pub(crate) fn of(properties: &BTreeMap<String, String>) -> Option<Self> {
        let text = properties.get(TARGET_PROPERTY)?.trim().to_lowercase();
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text.get(digits.len()..)? {
            "" | "b" => 0,
            "k" | "kb" => 10,
            "m" | "mb" => 20,
            "g" | "gb" => 30,
            _ => return None,
        };
        let number: u64 = digits.trim().parse().ok()?;
        number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).map(Self)
    }
}

/// Runs rewrites of tables.
#[derive(Clone, Debug)]
pub(crate) struct Optimizer {
    pub(crate) lake: Arc<dyn LakeFormat>,
    pub(crate) engines: Arc<Engines>,
    pub(crate) state: SessionState,
    /// With the memory that the work may use in this process.
    pub(crate) context: Arc<TaskContext>,
    /// For tables that ask for no size themselves.
    pub(crate) target: TargetSize,
    /// Bytes for the files that are written at a time in this process: writers are not counted in the context's
    /// memory.
    pub(crate) memory: usize,
    /// Where each round waits for its turn, when nobody asked for it; a statement has waited as a whole.
    pub(crate) turns: Option<Arc<Gate>>,
}

/// As whom care of tables that nobody asked for waits for its turn.
const UPKEEP: &str = "upkeep";

impl Optimizer {
    /// How many bins are written at once in this process: one holds a row group, decoded and encoded, which is no
    /// larger than two files.
    pub(super) fn bins_at_once(&self, target: TargetSize) -> usize {
        let memory = match self.context.memory_pool().memory_limit() {
            MemoryLimit::Finite(bytes) => self.memory.min(bytes),
            _ => self.memory,
        };
        let bins = memory as u64 / target.0.saturating_mul(2).max(1);
        usize::try_from(bins).unwrap_or(usize::MAX).max(1)
    }

    /// Waits until no user's heavy job does, if nobody waits for this.
    pub(super) async fn turn(&self) -> Result<Option<Permit>> {
        let Some(gate) = &self.turns else { return Ok(None) };
        let (user, lane, priority) = (UPKEEP.to_owned(), Lane::Heavy, Priority::Last);
        gate.enter(&Request { user, lane, priority, again: true }).await.map(Some)
    }

    /// Writes the rows of `plan` into files of the table, visible to nobody before they are committed.
    pub(super) async fn write(
        &self,
        location: &Url,
        engine: Arc<dyn Engine>,
        plan: Arc<dyn ExecutionPlan>,
        target: TargetSize,
        title: String,
    ) -> Result<Vec<Written>> {
        let id = new_job();
        let mut sink = lake_sink(location);
        sink.options.insert("target_file_size_bytes".to_owned(), target.0.to_string());
        let scope = WriteScope { job: id.as_str().to_owned(), run: 1, task: id.as_str().to_owned() };
        let plan = Arc::new(WriteExec::new(Arc::new(WriteSpec { sink, scope, tally: None }), plan));
        let job = JobSpec { id, kind: JobKind::Write, title };
        let running = engine.execute(job, plan, self.context.clone()).await?;
        collect_written(running.stream).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_its_file_size_in_bytes_or_units() {
        let of =
            |text: &str| TargetSize::of(&BTreeMap::from([(TARGET_PROPERTY.to_owned(), text.to_owned())]));
        assert_eq!(of("1048576"), Some(TargetSize(1 << 20)));
        assert_eq!(of("256mb"), Some(TargetSize(256 << 20)));
        assert_eq!(of("1 GB"), Some(TargetSize(1 << 30)));
        assert_eq!(of("0"), None);
        assert_eq!(of("large"), None);
        assert_eq!(TargetSize::of(&BTreeMap::new()), None);
    }
}
