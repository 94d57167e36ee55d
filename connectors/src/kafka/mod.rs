//! Apache Kafka as a source: one split a partition, positions are offsets.
//!
//! ```text
//! available() ─▶ Probe (one client, reused) ─▶ partitions, first and last offsets
//! open(range) ─▶ pool ─▶ Session (one client a partition, prefetching between epochs)
//!                           └─▶ queue: batches of borrowed messages ─▶ RawBatch
//! ```
//!
//! Offsets are ours: the journal keeps them, no consumer group is joined and nothing is committed to the
//! broker. The end of a range is reached by position or by the broker's end-of-partition event, never by
//! waiting for the message before the end: transaction markers and compaction leave gaps.

mod client;
mod error;
mod options;
mod pool;
mod probe;
mod queue;
mod reader;
mod session;
mod source;
#[cfg(test)]
mod tests;

pub use options::{OPTIONS, is_passthrough};
pub use source::{KafkaSource, source};
