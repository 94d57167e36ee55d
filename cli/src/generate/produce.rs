//! The stream into Kafka, at a rate.

use super::GenerateArgs;
use super::events::{Event, EventStream};
use super::tally::{Tally, WindowTally};
use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For every question to the brokers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// For what is still under way at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// How often delivery reports are served and the clock is read, in events.
const BREATH: u64 = 256;

const SETTINGS: [(&str, &str); 7] = [
    ("client.id", "tidemill-generate"),
    ("enable.idempotence", "true"),
    ("compression.type", "lz4"),
    ("linger.ms", "5"),
    ("batch.size", "1000000"),
    ("queue.buffering.max.messages", "500000"),
    // Only losses are worth a report; one for every event costs as much as making the event.
    ("delivery.report.only.error", "true"),
];

/// What was produced, all of it acknowledged.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub produced: u64,
    pub good: u64,
    pub duplicates: u64,
    pub late: u64,
    pub malformed: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub events_per_second: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowSummary>,
}

/// Good events of one window and region.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WindowSummary {
    /// In milliseconds since the epoch.
    pub window_start_ms: i64,
    pub region: &'static str,
    #[serde(flatten)]
    pub tally: WindowTally,
}

/// Creates the topic if need be and produces until the count is reached or `stop` is set.
///
/// # Errors
/// When the brokers cannot be reached, refuse the topic or lose a record.
pub(crate) async fn produce(args: &GenerateArgs, stop: Arc<AtomicBool>) -> Result<Summary> {
    let config = client_config(args)?;
    let stream = EventStream::new(args.spec()?, args.seed);
    ensure_topic(args, &config).await?;
    let args = args.clone();
    tokio::task::spawn_blocking(move || send_all(&args, &config, stream, &stop)).await?
}

fn client_config(args: &GenerateArgs) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &args.brokers);
    for (key, value) in SETTINGS {
        config.set(key, value);
    }
    for property in &args.properties {
        let (key, value) =
            property.split_once('=').with_context(|| format!("--property {property}: expected KEY=VALUE"))?;
        config.set(key, value);
    }
    Ok(config)
}

async fn ensure_topic(args: &GenerateArgs, config: &ClientConfig) -> Result<()> {
    let mut plain = ClientConfig::new();
    // Producer settings would only be warned about here.
    for (key, value) in config.config_map() {
        if !SETTINGS.iter().any(|(ours, _)| *ours == key) {
            plain.set(key, value);
        }
    }
    let admin: AdminClient<DefaultClientContext> = plain.create()?;
    let topic = NewTopic::new(&args.topic, args.partitions, TopicReplication::Fixed(-1));
    let options =
        AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
    let results = admin
        .create_topics([&topic], &options)
        .await
        .with_context(|| format!("Kafka at {} does not answer; check --brokers", args.brokers))?;
    match results.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
            bail!("Kafka at {} does not create the topic `{}`: {code}", args.brokers, args.topic)
        }
        _ => Ok(()),
    }
}

/// Counts what was not delivered; its reports come in while the producer is polled.
#[derive(Debug, Default)]
struct Deliveries {
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn send_all(
    args: &GenerateArgs,
    config: &ClientConfig,
    mut stream: EventStream,
    stop: &AtomicBool,
) -> Result<Summary> {
    let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
    let mut tally = Tally::new(args.window_secs);
    let mut event = Event::default();
    let mut bytes = 0;
    let begun = Instant::now();
    let mut sent = 0;
    while (args.count == 0 || sent < args.count) && !stop.load(Ordering::Relaxed) {
        stream.fill(&mut event);
        send(&producer, args, &event)?;
        tally.add(&event.facts);
        bytes += event.payload.len() as u64;
        sent += 1;
        if sent % BREATH == 0 || (args.rate > 0.0 && args.rate < 100.0 * BREATH as f64) {
            producer.poll(Duration::ZERO);
            ensure!(producer.context().failed.load(Ordering::Relaxed) == 0, "Kafka did not take an event");
            keep_rate(args.rate, sent, begun, stop);
        }
    }
    producer.flush(FLUSH_TIMEOUT).context("some events were not acknowledged")?;
    let failed = producer.context().failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "Kafka did not take {failed} events");
    Ok(summary(tally, bytes, begun.elapsed()))
}

fn send(producer: &BaseProducer<Deliveries>, args: &GenerateArgs, event: &Event) -> Result<()> {
    let mut record = BaseRecord::to(&args.topic).key(&event.key).payload(&event.payload);
    let mut full_since = None;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                let since = *full_since.get_or_insert_with(Instant::now);
                ensure!(since.elapsed() < FLUSH_TIMEOUT, "Kafka at {} takes no more events", args.brokers);
                record = back;
                producer.poll(Duration::from_millis(10));
            }
            Err((error, _)) => return Err(error).context("sending an event"),
        }
    }
}

/// Sleeps until event number `sent` is due, in steps short enough to notice `stop`.
fn keep_rate(rate: f64, sent: u64, begun: Instant, stop: &AtomicBool) {
    if rate <= 0.0 {
        return;
    }
    let due = begun + Duration::from_secs_f64(sent as f64 / rate);
    while !stop.load(Ordering::Relaxed) {
        let wait = due.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return;
        }
        std::thread::sleep(wait.min(Duration::from_millis(100)));
    }
}

fn summary(tally: Tally, bytes: u64, took: Duration) -> Summary {
    let produced = tally.total();
    let windows = tally.windows.iter().map(|((start, region), tally)| WindowSummary {
        window_start_ms: *start,
        region,
        tally: *tally,
    });
    Summary {
        produced,
        good: tally.good,
        duplicates: tally.duplicates,
        late: tally.late,
        malformed: tally.malformed,
        bytes,
        seconds: took.as_secs_f64(),
        events_per_second: produced as f64 / took.as_secs_f64(),
        windows: windows.collect(),
    }
}
