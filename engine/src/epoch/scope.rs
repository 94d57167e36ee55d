//! What every operator of an epoch's plan knows about the epoch.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tidemill_core::{Epoch, PipelineId, Result};

/// One try of one epoch. It travels with the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochScope {
    pub pipeline: PipelineId,
    pub epoch: Epoch,
    /// Unique to this try: reports and files of different tries never meet.
    pub attempt: String,
    /// See [`tidemill_core::epoch::Intent`].
    pub late_before_ms: Option<i64>,
    /// See [`tidemill_core::epoch::Intent`].
    pub close_before_ms: Option<i64>,
}

impl EpochScope {
    /// The pipeline's folder in the checkpoint store.
    pub fn folder(&self, root: &Path) -> Path {
        pipeline_folder(root, &self.pipeline)
    }

    /// Where reports of this try are put by other processes.
    pub fn reports(&self, root: &Path) -> Path {
        self.folder(root).join("reports").join(format!("{:020}-{}", self.epoch.0, self.attempt))
    }
}

/// A pipeline's folder in the checkpoint store.
pub fn pipeline_folder(root: &Path, pipeline: &PipelineId) -> Path {
    root.clone().join("pipelines").join(pipeline.as_str())
}

/// The event time of a row and the moment at which the row's result is final: the end of its last window,
/// or the event time itself where there is no window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTime {
    pub column: String,
    /// Length of a window and distance between the starts of two; `None` without windows.
    pub window: Option<WindowSize>,
}

/// Milliseconds. `slide == size` for tumbling windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    pub size_ms: i64,
    pub slide_ms: i64,
}

impl EventTime {
    /// When a row of this event time becomes final, in milliseconds since the Unix epoch.
    pub fn final_at(&self, time_ms: i64) -> i64 {
        match self.window {
            Some(WindowSize { size_ms, slide_ms }) => time_ms - time_ms.rem_euclid(slide_ms) + size_ms,
            None => time_ms,
        }
    }
}

/// A timestamp column as milliseconds since the Unix epoch; nulls stay null.
pub fn to_millis(array: &ArrayRef) -> Result<arrow::array::TimestampMillisecondArray> {
    let millis = cast(array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
    debug_assert_eq!(millis.len(), array.len());
    Ok(millis.as_primitive::<TimestampMillisecondType>().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_final_with_its_last_window() {
        let tumble = EventTime {
            column: "ts".to_owned(),
            window: Some(WindowSize { size_ms: 60_000, slide_ms: 60_000 }),
        };
        assert_eq!(tumble.final_at(0), 60_000);
        assert_eq!(tumble.final_at(59_999), 60_000);
        assert_eq!(tumble.final_at(-1), 0);
        let hop = EventTime {
            column: "ts".to_owned(),
            window: Some(WindowSize { size_ms: 60_000, slide_ms: 20_000 }),
        };
        assert_eq!(hop.final_at(25_000), 80_000);
        assert_eq!(EventTime { column: "ts".to_owned(), window: None }.final_at(7), 7);
    }
}
