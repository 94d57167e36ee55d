//! One partition's log: whole record batches as their producers made them, with the offsets given here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Kafka's error codes that this broker gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub(super) enum Code {
    None = 0,
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    InvalidTopic = 17,
    TopicAlreadyExists = 36,
    InvalidPartitions = 37,
    UnsupportedForMessageFormat = 43,
    OutOfOrderSequenceNumber = 45,
    UnsupportedVersion = 35,
    InvalidProducerEpoch = 47,
}

/// Bytes from the start of a batch to its records; `batchLength` counts from the field after itself.
const HEADER_BYTES: usize = 61;
const AFTER_LENGTH: usize = 12;
/// So many requests may be under way in an idempotent producer, and so many may come again.
const REMEMBERED: usize = 5;

#[derive(Debug)]
struct Batch {
    /// The offset after its last record.
    next: i64,
    bytes: Arc<[u8]>,
}

/// The last batches of one producer: sequence of the first record, of the one after the last, base offset.
#[derive(Debug, Default)]
struct Producer {
    epoch: i16,
    batches: VecDeque<(i32, i32, i64)>,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    batches: Vec<Batch>,
    producers: HashMap<i64, Producer>,
}

/// The fields of a batch's header that matter here.
struct Header {
    records: i32,
    producer: i64,
    epoch: i16,
    sequence: i32,
}

impl Header {
    fn of(bytes: &[u8]) -> Option<Self> {
        let i32_at = |at: usize| Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let length = usize::try_from(i32_at(8)?).ok()?;
        // Magic 2 is the format since 0.11; a length of its own means more than one batch or a torn one.
        if bytes.len() < HEADER_BYTES || bytes.len() != length + AFTER_LENGTH || bytes[16] != 2 {
            return None;
        }
        let (last_delta, records) = (i32_at(23)?, i32_at(57)?);
        (records > 0 && last_delta == records - 1).then_some(Self {
            records,
            producer: i64::from_be_bytes(bytes[43..51].try_into().ok()?),
            epoch: i16::from_be_bytes(bytes[51..53].try_into().ok()?),
            sequence: i32_at(53)?,
        })
    }
}

impl Log {
    /// The offset that the next record gets.
    pub(super) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.next)
    }

    /// Takes one batch and gives its base offset; one that came before gives the offset of then.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<i64, Code> {
        let header = Header::of(bytes).ok_or(Code::CorruptMessage)?;
        let base = self.end();
        if header.producer >= 0
            && let Some(earlier) = self.producers.entry(header.producer).or_default().admit(&header, base)?
        {
            return Ok(earlier);
        }
        let mut bytes = bytes.to_vec();
        // Neither the base offset nor the leader's epoch is under the checksum.
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[12..16].copy_from_slice(&0_i32.to_be_bytes());
        self.batches.push(Batch { next: base + i64::from(header.records), bytes: bytes.into() });
        Ok(base)
    }

    /// Whole batches from the one that holds `offset`, at least one if there is any, about `max_bytes`.
    pub(super) fn read(&self, offset: i64, max_bytes: usize) -> Result<Vec<Arc<[u8]>>, Code> {
        if offset < 0 || offset > self.end() {
            return Err(Code::OffsetOutOfRange);
        }
        let first = self.batches.partition_point(|batch| batch.next <= offset);
        let mut bytes = 0;
        let enough = |batch: &&Batch| {
            let fits = bytes == 0 || bytes + batch.bytes.len() <= max_bytes;
            bytes += batch.bytes.len();
            fits
        };
        Ok(self.batches[first..].iter().take_while(enough).map(|batch| Arc::clone(&batch.bytes)).collect())
    }
}

impl Producer {
    /// `Some` base offset when the batch is here already. See KIP-98.
    fn admit(&mut self, header: &Header, base: i64) -> Result<Option<i64>, Code> {
        if header.epoch < self.epoch {
            return Err(Code::InvalidProducerEpoch);
        }
        if header.epoch > self.epoch {
            *self = Self { epoch: header.epoch, batches: VecDeque::new() };
        }
        // Sequences begin again at 0 after the highest number.
        let after = header.sequence.wrapping_add(header.records) & i32::MAX;
        let same = |batch: &&(i32, i32, i64)| (batch.0, batch.1) == (header.sequence, after);
        if let Some((_, _, earlier)) = self.batches.iter().find(same) {
            return Ok(Some(*earlier));
        }
        if header.sequence != self.batches.back().map_or(0, |batch| batch.1) {
            return Err(Code::OutOfOrderSequenceNumber);
        }
        self.batches.push_back((header.sequence, after, base));
        if self.batches.len() > REMEMBERED {
            self.batches.pop_front();
        }
        Ok(None)
    }
}
