//! With librdkafka, the client that the Kafka connector uses.

use super::Broker;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

const SECONDS: Duration = Duration::from_secs(20);
const PARTITIONS: i32 = 4;

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address.to_string()).set("group.id", "tests");
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.set("auto.offset.reset", "error").set("isolation.level", "read_committed");
    config
}

async fn create(broker: &Broker, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let admin: AdminClient<DefaultClientContext> = config(broker).create().unwrap();
    let topic = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1));
    let made = admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(SECONDS))).await;
    made.unwrap().remove(0).map(drop).map_err(|(_, code)| code)
}

/// Record `i` holds `i` and goes to partition `i % PARTITIONS`.
fn produce(producer: &BaseProducer, topic: &str, records: std::ops::Range<usize>) {
    for i in records {
        let text = i.to_string();
        let mut record = BaseRecord::<(), str>::to(topic).payload(&text).partition(i as i32 % PARTITIONS);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
    producer.flush(SECONDS).unwrap();
}

fn ends(consumer: &BaseConsumer, topic: &str) -> Vec<i64> {
    let mut wanted = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        wanted.add_partition_offset(topic, partition, Offset::End).unwrap();
    }
    let answer = consumer.offsets_for_times(wanted, SECONDS).unwrap();
    answer.elements().iter().map(|element| element.offset().to_raw().unwrap()).collect()
}

/// Offsets and numbers from `offset` to the end that the broker tells.
fn read(broker: &Broker, topic: &str, partition: i32, offset: i64) -> Vec<(i64, usize)> {
    let consumer: BaseConsumer = config(broker).create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    consumer.assign(&assignment).unwrap();
    let (mut records, begun) = (Vec::new(), Instant::now());
    loop {
        assert!(begun.elapsed() < SECONDS, "no end after {} records", records.len());
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
                records.push((message.offset(), text.parse().unwrap()));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return records,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_right_at_once_and_every_record_is_read_from_any_offset() {
    let broker = Broker::start(0).await.unwrap();
    create(&broker, "events").await.unwrap();
    assert_eq!(create(&broker, "events").await, Err(RDKafkaErrorCode::TopicAlreadyExists));
    let producer: BaseProducer = config(&broker).set("enable.idempotence", "true").create().unwrap();
    let consumer: BaseConsumer = config(&broker).create().unwrap();
    assert_eq!(ends(&consumer, "events"), [0; 4]);
    for round in 0..3 {
        produce(&producer, "events", round * 50_000..(round + 1) * 50_000);
        assert_eq!(ends(&consumer, "events"), [12_500 * (round as i64 + 1); 4]);
        assert_eq!(consumer.fetch_watermarks("events", 2, SECONDS).unwrap().1, 12_500 * (round as i64 + 1));
    }
    for partition in 0..PARTITIONS {
        let expected = |from: usize| -> Vec<(i64, usize)> {
            (from..37_500).map(|i| (i as i64, i * PARTITIONS as usize + partition as usize)).collect()
        };
        for from in [1, 7_777, 37_500] {
            assert_eq!(read(&broker, "events", partition, from as i64), expected(from));
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_waits_is_answered_by_the_next_record() {
    let broker = Broker::start(0).await.unwrap();
    create(&broker, "events").await.unwrap();
    let consumer: BaseConsumer = config(&broker).set("fetch.wait.max.ms", "5000").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("events", 0, Offset::Offset(0)).unwrap();
    consumer.assign(&assignment).unwrap();
    // The end of the empty log is told by the first fetch, so that the next one waits.
    let told = consumer.poll(SECONDS).unwrap();
    assert!(matches!(told, Err(KafkaError::PartitionEOF(0))), "{told:?}");
    drop(told);
    let producer: BaseProducer = config(&broker).set("linger.ms", "0").create().unwrap();
    produce(&producer, "events", 0..1);
    let sent = Instant::now();
    let message = consumer.poll(SECONDS).unwrap().unwrap();
    assert_eq!(message.offset(), 0);
    assert!(sent.elapsed() < Duration::from_secs(3), "{:?}", sent.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_an_error_and_does_not_appear() {
    let broker = Broker::start(0).await.unwrap();
    assert_eq!(create(&broker, "a topic").await, Err(RDKafkaErrorCode::InvalidTopic));
    create(&broker, "events").await.unwrap();
    let consumer: BaseConsumer = config(&broker).create().unwrap();
    assert!(consumer.fetch_watermarks("unknown", 0, Duration::from_secs(5)).is_err());
    let all = consumer.fetch_metadata(None, SECONDS).unwrap();
    assert_eq!(all.topics().iter().map(|topic| topic.name()).collect::<Vec<_>>(), ["events"]);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("events", 0, Offset::Offset(5)).unwrap();
    consumer.assign(&assignment).unwrap();
    let told = consumer.poll(SECONDS).unwrap().map(drop);
    assert_eq!(told.unwrap_err().rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let broker = Broker::start(0).await.unwrap();
    let port = broker.address.port();
    let error = Broker::start(port).await.unwrap_err();
    assert!(format!("{error:#}").contains(&port.to_string()), "{error:#}");
    broker.stop().await;
    Broker::start(port).await.unwrap();
}
