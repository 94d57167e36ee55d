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
use rdkafka::topic_partition_list::TopicPartitionListElem;
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

/// How far one step has gone to get a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    WhatIsThere,
    OneMore,
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
        let mut asked = Asked::Nothing;
        loop {
            if self.next.unwrap_or_default() >= range.end {
                return Ok(Step::End);
            }
            let Some(message) = self.pending.pop() else {
                if self.ended_at >= range.end || (asked == Asked::WhatIsThere && self.passed(range.end)) {
                    self.next = Some(range.end);
                    return Ok(Step::End);
                }
                asked = match asked {
                    Asked::Nothing => {
                        self.refill(range.end);
                        Asked::WhatIsThere
                    }
                    Asked::WhatIsThere => {
                        self.queue.take(1, wait, &mut self.pending);
                        Asked::OneMore
                    }
                    Asked::OneMore => return Ok(Step::Waited),
                };
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

    /// Takes what is there, but no more than the range can hold: the rest stays in the client's queue.
    fn refill(&mut self, end: i64) {
        let most = usize::try_from(end - self.next.unwrap_or_default()).unwrap_or(1).clamp(1, BATCH);
        self.queue.take(most, Duration::ZERO, &mut self.pending);
        self.pending.reverse();
    }

    /// Whether the client has passed `end` over a transaction marker, which it gives to nobody. The end of
    /// the partition would say so too, but only after the broker has waited for more.
    ///
    /// Only while nothing is pending. The end-of-partition event at E moves the client's position to E + 1
    /// although E is yet to come, so that one value says nothing.
    fn passed(&self, end: i64) -> bool {
        let Ok(positions) = self.consumer.position() else { return false };
        let here = |position: &TopicPartitionListElem<'_>| position.partition() == self.partition;
        match positions.elements().iter().find(|position| here(position)).map(|found| found.offset()) {
            Some(Offset::Offset(position)) => position >= end && position > self.ended_at + 1,
            _ => false,
        }
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
