//! Asks the brokers what a topic holds.

use super::client::{self, Consumer};
use super::error;
use super::options::KafkaOptions;
use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidemill_core::{Available, Error, Result, SplitId};

/// For all the calls of one question together.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(9);
/// For the list of topics that goes with "no such topic".
const SUGGEST_TIMEOUT: Duration = Duration::from_secs(2);
/// For what a client in trouble has to say.
const REPORTS_WAIT: Duration = Duration::from_millis(50);
const MOST_REPORTS: usize = 50;
/// New partitions are seen after this time.
const PARTITIONS_AGE: Duration = Duration::from_secs(10);

/// One client for all questions about one topic, made at the first. Blocking.
#[derive(Debug)]
pub(super) struct Probe {
    options: KafkaOptions,
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    consumer: Consumer,
    /// The topic's partitions, and when they were asked for.
    partitions: Option<(Vec<i32>, Instant)>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl Probe {
    pub(super) fn new(options: KafkaOptions) -> Self {
        Self { options, connection: Mutex::new(None) }
    }

    /// First and end offset of every partition: two requests a broker, plus the metadata when it is old.
    pub(super) fn available(&self) -> Result<BTreeMap<SplitId, Available>> {
        let mut slot = self.connection.lock();
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Connection { consumer: client::consumer(&self.options)?, partitions: None },
        };
        let answer = self.ask(&mut connection, Instant::now() + ANSWER_TIMEOUT);
        // A client that failed may itself be at fault: the next question gets a new one.
        match answer {
            Ok(_) => *slot = Some(connection),
            Err(_) => client::close(connection.consumer),
        }
        answer
    }

    fn ask(&self, connection: &mut Connection, deadline: Instant) -> Result<BTreeMap<SplitId, Available>> {
        let partitions = match connection.partitions.take() {
            Some((partitions, asked)) if asked.elapsed() < PARTITIONS_AGE => (partitions, asked),
            _ => (self.partitions(&connection.consumer, deadline)?, Instant::now()),
        };
        let (partitions, _) = connection.partitions.insert(partitions);
        let earliest = self.offsets(&connection.consumer, partitions, Offset::Beginning, deadline)?;
        let latest = self.offsets(&connection.consumer, partitions, Offset::End, deadline)?;
        let available = partitions.iter().filter_map(|partition| {
            let (earliest, latest) = (*earliest.get(partition)?, *latest.get(partition)?);
            Some((split_id(&self.options.topic, *partition), Available { earliest, latest }))
        });
        Ok(available.collect())
    }

    fn partitions(&self, consumer: &Consumer, deadline: Instant) -> Result<Vec<i32>> {
        const DOING: &str = "asking for the topic's partitions";
        let topic = self.options.topic.as_str();
        let metadata = consumer
            .fetch_metadata(Some(topic), remaining(deadline))
            .map_err(|error| self.failure(consumer, DOING, &error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Err(self.no_topic(consumer));
        };
        match found.error() {
            None if found.partitions().is_empty() => Err(self.no_topic(consumer)),
            None => Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()),
            Some(
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
            ) => Err(self.no_topic(consumer)),
            Some(code) => Err(error::failure(&self.options, DOING, RDKafkaErrorCode::from(code), None)),
        }
    }

    /// `at` is the beginning or the end; Kafka takes both for special times in one request.
    fn offsets(
        &self,
        consumer: &Consumer,
        partitions: &[i32],
        at: Offset,
        deadline: Instant,
    ) -> Result<BTreeMap<i32, i64>> {
        const DOING: &str = "asking for offsets";
        let failed = |error: KafkaError| self.failure(consumer, DOING, &error);
        let mut wanted = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            wanted.add_partition_offset(&self.options.topic, *partition, at).map_err(failed)?;
        }
        let answer = consumer.offsets_for_times(wanted, remaining(deadline)).map_err(failed)?;
        let mut offsets = BTreeMap::new();
        for element in answer.elements() {
            element.error().map_err(failed)?;
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                // The client's word for "not known now", as while a partition has no leader.
                _ => return Err(failed(KafkaError::OffsetFetch(RDKafkaErrorCode::LeaderNotAvailable))),
            };
            offsets.insert(element.partition(), offset);
        }
        Ok(offsets)
    }

    fn failure(&self, consumer: &Consumer, doing: &str, error: &KafkaError) -> Error {
        // Serves the client's own reports, among them why it could not connect.
        let reports = std::iter::from_fn(|| consumer.poll(REPORTS_WAIT)).take(MOST_REPORTS);
        reports.for_each(drop);
        error::failure(&self.options, doing, error::code_of(error), consumer.context().take())
    }

    fn no_topic(&self, consumer: &Consumer) -> Error {
        let error = error::no_topic(&self.options);
        let Ok(metadata) = consumer.fetch_metadata(None, SUGGEST_TIMEOUT) else { return error };
        let names = metadata.topics().iter().map(rdkafka::metadata::MetadataTopic::name);
        error.suggest(&self.options.topic, names.filter(|name| !name.starts_with("__")))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get_mut().take() {
            client::close(connection.consumer);
        }
    }
}

fn remaining(deadline: Instant) -> Duration {
    // Zero would mean "do not wait at all" and fail with a misleading reason.
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(10))
}

pub(super) fn split_id(topic: &str, partition: i32) -> SplitId {
    SplitId::new(format!("{topic}/{partition}"))
}

/// The partition of a split of this topic.
pub(super) fn partition_of(topic: &str, split: &SplitId) -> Result<i32> {
    let partition = split.as_str().strip_prefix(topic).and_then(|rest| rest.strip_prefix('/'));
    partition
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| Error::internal(format!("`{split}` is not a split of the topic `{topic}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_names_its_partition() {
        assert_eq!(partition_of("a/b", &split_id("a/b", 12)).unwrap(), 12);
        assert!(partition_of("a", &split_id("b", 1)).is_err());
        assert!(partition_of("a", &SplitId::new("a/x")).is_err());
    }
}
