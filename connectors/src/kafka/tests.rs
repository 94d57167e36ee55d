//! Against librdkafka's own mock brokers, in this process.

use super::source::KafkaSource;
use arrow::array::Array;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidemill_core::{Code, RawBatch, Source, SplitId, SplitRange};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn options(servers: &str, topic: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("topic".to_owned(), topic.to_owned()),
        ("properties.bootstrap.servers".to_owned(), servers.to_owned()),
        ("read_timeout_secs".to_owned(), "2".to_owned()),
    ])
}

fn produce(cluster: &Cluster, topic: &str, partition: i32, payloads: &[Option<&str>]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for payload in payloads {
        let mut record = BaseRecord::<(), str>::to(topic).partition(partition);
        record.payload = *payload;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

fn cluster(topic: &str, partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(topic, partitions, 1).unwrap();
    cluster
}

fn range(split: &str, start: i64, end: i64) -> SplitRange {
    SplitRange { split: SplitId::new(split), start, end }
}

fn read(source: &KafkaSource, range: &SplitRange, max_bytes: usize) -> Vec<RawBatch> {
    let mut reader = source.open(range).unwrap();
    std::iter::from_fn(|| reader.next(max_bytes).unwrap()).collect()
}

fn texts(batches: &[RawBatch]) -> Vec<Option<String>> {
    let text = |payload: Option<&[u8]>| payload.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    batches.iter().flat_map(|batch| batch.payload.iter().map(text).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn tells_what_every_partition_holds() {
    let cluster = cluster("events", 3);
    produce(&cluster, "events", 1, &[Some("a"), Some("b")]);
    let mut options = options(&cluster.bootstrap_servers(), "events");
    let source = KafkaSource::new(&options).unwrap();
    let available = source.available().await.unwrap();
    let latest: Vec<(&str, i64, i64)> =
        available.iter().map(|(split, held)| (split.as_str(), held.earliest, held.latest)).collect();
    assert_eq!(latest, [("events/0", 0, 0), ("events/1", 0, 2), ("events/2", 0, 0)]);
    assert_eq!(source.start().await.unwrap()[&SplitId::new("events/1")], 0);
    options.insert("scan.startup.mode".to_owned(), "latest".to_owned());
    let source = KafkaSource::new(&options).unwrap();
    assert_eq!(source.start().await.unwrap()[&SplitId::new("events/1")], 2);
}

#[test]
fn reads_exactly_the_range_with_tombstones_and_again() {
    let cluster = cluster("ranges", 1);
    produce(&cluster, "ranges", 0, &[Some("a"), Some("b"), None, Some(""), Some("e"), Some("f")]);
    let source = KafkaSource::new(&options(&cluster.bootstrap_servers(), "ranges")).unwrap();
    let batches = read(&source, &range("ranges/0", 1, 5), 1 << 20);
    let expected = [Some("b"), None, Some(""), Some("e")].map(|text| text.map(str::to_owned));
    assert_eq!(texts(&batches), expected);
    assert_eq!(batches[0].position.values(), &[1, 2, 3, 4]);
    assert!(batches[0].timestamp_ms.iter().all(|time| time.is_some_and(|ms| ms > 1_600_000_000_000)));
    // The same range again, and the one that follows, on the same pooled session.
    assert_eq!(texts(&read(&source, &range("ranges/0", 1, 5), 1)), expected);
    assert_eq!(texts(&read(&source, &range("ranges/0", 5, 6), 1)), [Some("f".to_owned())]);
    assert!(read(&source, &range("ranges/0", 6, 6), 1).is_empty());
}

#[test]
fn keeps_batches_near_the_limit() {
    let cluster = cluster("limits", 1);
    let payload = "x".repeat(100);
    produce(&cluster, "limits", 0, &[Some(payload.as_str()); 50]);
    let source = KafkaSource::new(&options(&cluster.bootstrap_servers(), "limits")).unwrap();
    let batches = read(&source, &range("limits/0", 0, 50), 1000);
    assert_eq!(batches.iter().map(|batch| batch.payload.len()).collect::<Vec<_>>(), [10; 5]);
}

#[test]
fn a_reader_given_up_half_way_leaves_nothing_behind() {
    let cluster = cluster("dropped", 1);
    produce(&cluster, "dropped", 0, &[Some("a"), Some("b"), Some("c")]);
    let source = KafkaSource::new(&options(&cluster.bootstrap_servers(), "dropped")).unwrap();
    let mut reader = source.open(&range("dropped/0", 0, 3)).unwrap();
    assert_eq!(reader.next(1).unwrap().unwrap().payload.value(0), b"a");
    drop(reader);
    let batches = read(&source, &range("dropped/0", 0, 3), 1 << 20);
    assert_eq!(texts(&batches).len(), 3);
}

#[test]
fn a_range_beyond_the_end_fails_after_the_time_out() {
    let cluster = cluster("stalled", 1);
    produce(&cluster, "stalled", 0, &[Some("a")]);
    let source = KafkaSource::new(&options(&cluster.bootstrap_servers(), "stalled")).unwrap();
    let mut reader = source.open(&range("stalled/0", 0, 5)).unwrap();
    let begun = Instant::now();
    let error = reader.next(1 << 20).unwrap_err();
    assert_eq!(error.code, Code::Unreachable);
    assert!(error.message.contains("stalled/0 0..5"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_position_that_is_gone_is_said_and_not_skipped() {
    let cluster = cluster("lost", 1);
    produce(&cluster, "lost", 0, &[Some("a")]);
    let source = KafkaSource::new(&options(&cluster.bootstrap_servers(), "lost")).unwrap();
    let mut reader = source.open(&range("lost/0", 100, 200)).unwrap();
    assert_eq!(reader.next(1 << 20).unwrap_err().code, Code::PositionLost);
}

#[tokio::test]
async fn an_unreachable_broker_is_named_in_time() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let servers = format!("127.0.0.1:{port}");
    let source = KafkaSource::new(&options(&servers, "t")).unwrap();
    let begun = Instant::now();
    let error = source.available().await.unwrap_err();
    assert_eq!(error.code, Code::Unreachable, "{error}");
    assert!(error.message.contains(&servers) && error.hint.as_ref().unwrap().contains(&servers), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(11));
}
