//! One client reading one partition, from one range to the next.
//!
//! Between two epochs it goes on fetching, so that the next range, which begins where the last one ended,
//! finds its first records here already.

use super::client::{self, Consumer};
use super::error::{self, Meaning};
use super::options::KafkaOptions;
use super::queue::{Message, Queue};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;
use tidemill_core::{Result, SplitRange};

/// How many messages are taken from the queue at once.
const BATCH: usize = 4096;

/// The fields are dropped in this order, which librdkafka asks for: borrowed things before the client.
pub(super) struct Session {
    /// Messages already taken from the queue, the next one last.
    pending: Vec<Message>,
    queue: Queue,
    consumer: Consumer,
    partition: i32,
    /// The next offset that the client will give.
    next: Option<i64>,
    /// The highest end of the partition that the broker has told. It tells each only once.
    ended_at: i64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("partition", &self.partition)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// What comes next in a range.
pub(super) enum Step {
    Record(Message),
    /// Nothing yet; the caller minds the time.
    Waited,
    End,
}

impl Session {
    pub(super) fn new(options: &KafkaOptions, partition: i32) -> Result<Self> {
        let consumer = client::consumer(options)?;
        let queue = Queue::of(&consumer)?;
        Ok(Self { pending: Vec::new(), queue, consumer, partition, next: None, ended_at: 0 })
    }

    /// Goes to `start`, for nothing if it is already there.
    pub(super) fn seek(&mut self, options: &KafkaOptions, start: i64) -> Result<()> {
        if self.next == Some(start) {
            return Ok(());
        }
        self.pending.clear();
        self.ended_at = 0;
        let failed = |error| error::failure(options, "going to an offset", error::code_of(&error), None);
        let mut assignment = TopicPartitionList::with_capacity(1);
        assignment
            .add_partition_offset(&options.topic, self.partition, Offset::Offset(start))
            .map_err(failed)?;
        self.consumer.assign(&assignment).map_err(failed)?;
        self.next = Some(start);
        Ok(())
    }

    /// The next record of `range`, waiting at most `wait`.
    pub(super) fn step(
        &mut self,
        options: &KafkaOptions,
        range: &SplitRange,
        wait: Duration,
    ) -> Result<Step> {
        let mut may_wait = true;
        loop {
            if self.next.unwrap_or_default() >= range.end {
                return Ok(Step::End);
            }
            let Some(message) = self.pending.pop() else {
                if self.ended_at >= range.end {
                    self.next = Some(range.end);
                    return Ok(Step::End);
                }
                if !std::mem::take(&mut may_wait) {
                    return Ok(Step::Waited);
                }
                self.refill(range.end, wait);
                continue;
            };
            if let Some(event) = message.event() {
                self.heed(options, &message, event)?;
                continue;
            }
            if message.partition() != self.partition || message.offset() < self.next.unwrap_or_default() {
                continue;
            }
            if message.offset() >= range.end {
                // The first record after a gap; the next range begins with it.
                self.pending.push(message);
                self.next = Some(range.end);
                return Ok(Step::End);
            }
            self.next = Some(message.offset() + 1);
            return Ok(Step::Record(message));
        }
    }

    /// Takes no more than the range can hold, so that the rest stays in the client's queue.
    fn refill(&mut self, end: i64, wait: Duration) {
        let most = usize::try_from(end - self.next.unwrap_or_default()).unwrap_or(1).clamp(1, BATCH);
        self.queue.take(most, wait, &mut self.pending);
        self.pending.reverse();
    }

    fn heed(&mut self, options: &KafkaOptions, message: &Message, event: RDKafkaErrorCode) -> Result<()> {
        if event == RDKafkaErrorCode::PartitionEOF {
            self.ended_at = self.ended_at.max(message.offset());
            return Ok(());
        }
        if error::meaning(event) == Meaning::Unreachable {
            // The client tries again by itself; the caller's time-out decides.
            tracing::debug!(%event, text = message.event_text(), "Kafka");
            return Ok(());
        }
        let doing = format!("reading partition {} at {}", self.partition, self.next.unwrap_or_default());
        Err(error::failure(options, &doing, event, None))
    }

    /// What the client has reported by itself.
    pub(super) fn reported(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.consumer.context().take()
    }
}
