//! What compaction and clustering share: where a plan runs, and how its rows are written.

use crate::engines::Engines;
use crate::frontend::{lake_sink, new_job};
use datafusion::execution::SessionState;
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
    /// For tables that ask for no size themselves.
    pub(crate) target: TargetSize,
    /// Bins that are written at a time in this process; each holds about a row group in memory.
    pub(crate) bins_at_once: usize,
}

impl Optimizer {
    /// How many bins fit: one holds a row group, decoded and encoded, which is no larger than two files.
    pub(crate) fn bins_within(memory: u64, target: TargetSize) -> usize {
        usize::try_from(memory / target.0.saturating_mul(2).max(1)).unwrap_or(usize::MAX).max(1)
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
        let running = engine.execute(job, plan, self.state.task_ctx()).await?;
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
