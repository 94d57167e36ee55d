//! One range of one partition as Arrow batches.

use super::client;
use super::error;
use super::options::KafkaOptions;
use super::pool::{self, Key};
use super::session::{Session, Step};
use arrow::array::{BinaryBuilder, Int64Array, Int64Builder};
use rdkafka::error::RDKafkaErrorCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_core::{RawBatch, Result, SplitRange, SplitReader};

/// How long one wait for messages lasts.
const WAIT: Duration = Duration::from_millis(20);
/// A batch ends at this many rows too, for records of next to no bytes.
const MOST_ROWS: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct KafkaReader {
    options: Arc<KafkaOptions>,
    range: SplitRange,
    key: Key,
    /// `None` once it failed or was given back.
    session: Option<Session>,
}

impl KafkaReader {
    pub(super) fn open(options: Arc<KafkaOptions>, range: SplitRange) -> Result<Self> {
        let partition = super::probe::partition_of(&options.topic, &range.split)?;
        let key = (options.identity.clone(), range.split.clone());
        let mut session = match pool::take(&key) {
            Some(session) => session,
            None => Session::new(&options, partition)?,
        };
        match session.seek(&options, range.start) {
            Ok(()) => Ok(Self { options, range, key, session: Some(session) }),
            Err(error) => {
                client::close(session);
                Err(error)
            }
        }
    }

    fn read(&self, session: &mut Session, max_bytes: usize) -> Result<Option<RawBatch>> {
        let mut payload = BinaryBuilder::with_capacity(0, max_bytes.min(64 << 20));
        let mut position = Vec::new();
        let mut timestamp_ms = Int64Builder::new();
        let mut bytes = 0;
        // When the last record came, and how many there were then.
        let mut progress = (Instant::now(), 0);
        while bytes < max_bytes && position.len() < MOST_ROWS {
            match session.step(&self.options, &self.range, WAIT)? {
                Step::Record(message) => {
                    bytes += message.payload().map_or(0, <[u8]>::len);
                    payload.append_option(message.payload());
                    position.push(message.offset());
                    timestamp_ms.append_option(message.timestamp_ms());
                }
                Step::End => break,
                Step::Waited if position.len() > progress.1 => progress = (Instant::now(), position.len()),
                Step::Waited if progress.0.elapsed() >= self.options.read_timeout => {
                    return Err(self.stalled(session));
                }
                Step::Waited => {}
            }
        }
        if position.is_empty() {
            return Ok(None);
        }
        Ok(Some(RawBatch {
            payload: payload.finish(),
            position: Int64Array::from(position),
            timestamp_ms: timestamp_ms.finish(),
        }))
    }

    fn stalled(&self, session: &Session) -> tidemill_core::Error {
        let SplitRange { split, start, end } = &self.range;
        let seconds = self.options.read_timeout.as_secs();
        let doing = format!("no record of {split} {start}..{end} came for {seconds} s");
        error::failure(&self.options, &doing, RDKafkaErrorCode::OperationTimedOut, session.reported())
    }
}

impl SplitReader for KafkaReader {
    fn next(&mut self, max_bytes: usize) -> Result<Option<RawBatch>> {
        let Some(mut session) = self.session.take() else { return Ok(None) };
        match self.read(&mut session, max_bytes) {
            Ok(Some(batch)) => {
                self.session = Some(session);
                Ok(Some(batch))
            }
            Ok(None) => {
                pool::give(self.key.clone(), session);
                Ok(None)
            }
            Err(error) => {
                client::close(session);
                Err(error)
            }
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // A reader given up half-way knows its place, so its session is as good as any.
        if let Some(session) = self.session.take() {
            pool::give(self.key.clone(), session);
        }
    }
}
