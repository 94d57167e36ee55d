//! A source is a replayable map `split → position`; a checkpoint of it is that map.

use crate::{Result, SplitId};
use arrow::array::{BinaryArray, Int64Array};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// For each split the next position to read (exclusive end of what was read).
pub type Positions = BTreeMap<SplitId, i64>;

/// What `CREATE SOURCE … WITH (…)` said: enough to build the source again anywhere. Secrets in it are
/// references (`env:NAME`, `file:PATH`), resolved where the source is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpec {
    pub connector: String,
    pub options: BTreeMap<String, String>,
}

/// What a source can honestly do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCapabilities {
    /// It ends by itself.
    pub bounded: bool,
    /// The same range gives the same rows again. Exactly-once needs it.
    pub replayable: bool,
}

/// What a split holds at the moment: positions in `earliest..latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Available {
    pub earliest: i64,
    pub latest: i64,
}

/// Positions `start..end` of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRange {
    pub split: SplitId,
    pub start: i64,
    pub end: i64,
}

/// Records as they came, not yet decoded.
#[derive(Clone, Debug)]
pub struct RawBatch {
    pub payload: BinaryArray,
    /// Position of each record in its split.
    pub position: Int64Array,
    /// The broker's or file's time, in milliseconds since the epoch; null where there is none.
    pub timestamp_ms: Int64Array,
}

/// Reads one range. Blocking: the engine calls it on a thread of its own.
pub trait SplitReader: Send {
    /// The next records, at most about `max_bytes` of payload; `None` at the end of the range.
    /// Positions that hold no record (transaction markers, compaction) are passed over.
    fn next(&mut self, max_bytes: usize) -> Result<Option<RawBatch>>;
}

#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug {
    fn capabilities(&self) -> SourceCapabilities;

    /// Every split with what it holds now. Answers within the source's own time-out.
    async fn available(&self) -> Result<BTreeMap<SplitId, Available>>;

    /// Where a pipeline that has read nothing yet begins (`scan.startup.mode` and the like).
    async fn start(&self) -> Result<Positions>;

    /// Opens a reader on one range. Blocking, as the reader is.
    fn open(&self, range: &SplitRange) -> Result<Box<dyn SplitReader>>;
}
