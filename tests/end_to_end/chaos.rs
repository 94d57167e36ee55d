//! Exactly once under fire: a seeded hand kills scheduler and executors while a pipeline runs, and then every
//! window is compared with the producer's own count.
//!
//! Short by default; `TIDEMILL_CHAOS_KILLS=30` and `TIDEMILL_CHAOS_SEED=…` make another run of it.

use crate::cluster::{BINARY, Cluster, service};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Events a second, and how many for each kill: production lasts as long as the killing.
const RATE: u64 = 4_000;
const EVENTS_PER_KILL: u64 = 8_000;
/// Event time runs at this many events a second: windows of ten seconds hold ten times as many.
const EVENT_RATE: u64 = 1_000;

/// `(window start in ms, region) → (events, revenue in cents)`.
type Windows = BTreeMap<(i64, String), (u64, i64)>;

#[test]
fn every_window_is_right_whatever_was_killed() {
    const TEST: &str = "every_window_is_right_whatever_was_killed";
    let (Some(kafka), Some(s3)) = (service(TEST, "TIDEMILL_KAFKA"), service(TEST, "TIDEMILL_S3_ENDPOINT"))
    else {
        return;
    };
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
    };
    let kills = number("TIDEMILL_CHAOS_KILLS", 8);
    let seed = number("TIDEMILL_CHAOS_SEED", 7);
    let events = kills * EVENTS_PER_KILL;
    let topic = format!("chaos-{:016x}", rand::rng().random::<u64>());

    let mut cluster = Cluster::start(&s3);
    let producer = produce(&kafka, &topic, seed, events);
    cluster.until("the source is created", Duration::from_secs(30), || {
        cluster.rows(&source(&kafka, &topic)).ok()
    });
    cluster.rows(PIPELINE).unwrap();

    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut killed = BTreeMap::<&str, u64>::new();
    for _ in 0..kills {
        // A point in time, not a condition: it must fall anywhere within an epoch.
        std::thread::sleep(Duration::from_millis(rng.random_range(200..2_500)));
        let victim = rng.random_range(0..cluster.nodes.len());
        let node = &mut cluster.nodes[victim];
        node.kill();
        *killed.entry(node.role()).or_default() += 1;
        std::thread::sleep(Duration::from_millis(rng.random_range(0..800)));
        node.launch();
    }
    println!("seed {seed}, killed: {killed:?}");

    let output = producer.wait_with_output().unwrap();
    assert!(output.status.success(), "the producer failed");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let produced = summary["produced"].as_u64().unwrap();
    let totals = cluster.until("everything is read", Duration::from_secs(180), || {
        let rows = cluster.rows("SELECT * FROM tidemill.pipelines").ok()?;
        (rows[0]["read"].as_u64()? >= produced).then(|| rows[0].clone())
    });
    cluster.until("the pipeline is drained", Duration::from_secs(120), || {
        let _ = cluster.rows("STOP PIPELINE revenue WITH DRAIN");
        let rows = cluster.rows("SELECT status FROM tidemill.pipelines").ok()?;
        (rows[0]["status"] == "drained").then_some(())
    });

    println!("pipeline: {totals}");
    assert_eq!(totals["read"].as_u64(), Some(produced), "each record is read once");
    assert_eq!(totals["duplicates"], summary["duplicates"]);
    assert_eq!(totals["dead_letters"], summary["malformed"]);
    assert_eq!(totals["late"].as_u64(), Some(0));
    let letters = cluster.rows("SELECT count(*) AS n FROM revenue_dead_letters").unwrap();
    assert_eq!(letters[0]["n"], summary["malformed"]);
    let (expected, found) = (expected(&summary), found(&cluster));
    assert!(!expected.is_empty());
    let different: Vec<_> =
        expected.iter().filter(|(window, value)| found.get(*window) != Some(*value)).collect();
    if expected != found {
        cluster.print_logs();
    }
    assert!(different.is_empty(), "{} of {} windows differ: {different:?}", different.len(), expected.len());
    assert_eq!(expected.len(), found.len(), "there are windows that nobody produced");
    println!("{} windows, {produced} events, {kills} kills: difference 0", expected.len());
}

fn produce(kafka: &str, topic: &str, seed: u64, events: u64) -> std::process::Child {
    let arguments = [
        ("--brokers", kafka.to_owned()),
        ("--topic", topic.to_owned()),
        ("--partitions", "4".to_owned()),
        ("--rate", RATE.to_string()),
        ("--count", events.to_string()),
        ("--seed", seed.to_string()),
        ("--start", "2026-01-01T00:00:00Z".to_owned()),
        ("--event-rate", EVENT_RATE.to_string()),
        ("--late-share", "0".to_owned()),
        ("--duplicate-share", "0.02".to_owned()),
        ("--malformed-share", "0.01".to_owned()),
        ("--window-secs", "10".to_owned()),
    ];
    Command::new(BINARY)
        .arg("generate")
        .args(arguments.iter().flat_map(|(name, value)| [name.to_string(), value.clone()]))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn source(kafka: &str, topic: &str) -> String {
    format!(
        "CREATE SOURCE IF NOT EXISTS events (event_id VARCHAR NOT NULL, event_type VARCHAR NOT NULL, \
           timestamp TIMESTAMP NOT NULL, data STRUCT<price DOUBLE, quantity BIGINT>, \
           metadata STRUCT<region VARCHAR>, \
           WATERMARK FOR timestamp AS timestamp - INTERVAL '30 seconds') \
         WITH (connector = 'kafka', topic = '{topic}', 'properties.bootstrap.servers' = '{kafka}') \
         FORMAT PLAIN ENCODE JSON"
    )
}

const PIPELINE: &str = "CREATE STREAMING TABLE revenue WITH (trigger = '100 ms', max_records_per_epoch = 5000) AS \
    SELECT window_start, metadata['region'] AS region, count(*) AS events, \
      sum(CASE WHEN event_type = 'purchase' THEN data['price'] * data['quantity'] ELSE 0 END) AS revenue \
    FROM TUMBLE(DEDUPLICATE(events, event_id), timestamp, INTERVAL '10 seconds') \
    GROUP BY window_start, metadata['region']";

/// What the producer says that it produced.
fn expected(summary: &serde_json::Value) -> Windows {
    let windows = summary["windows"].as_array().unwrap();
    let window = |window: &serde_json::Value| {
        let key =
            (window["window_start_ms"].as_i64().unwrap(), window["region"].as_str().unwrap().to_owned());
        (key, (window["events"].as_u64().unwrap(), window["revenue_cents"].as_i64().unwrap()))
    };
    windows.iter().map(window).collect()
}

/// What is in the table. A window that is there twice is caught here.
fn found(cluster: &Cluster) -> Windows {
    let sql = "SELECT CAST(to_unixtime(window_start) AS BIGINT) * 1000 AS start_ms, region, events, \
               CAST(round(revenue * 100) AS BIGINT) AS cents FROM revenue";
    let mut windows = Windows::new();
    for row in cluster.rows(sql).unwrap() {
        let key = (row["start_ms"].as_i64().unwrap(), row["region"].as_str().unwrap().to_owned());
        let value = (row["events"].as_u64().unwrap(), row["cents"].as_i64().unwrap());
        assert_eq!(windows.insert(key.clone(), value), None, "window {key:?} is in the table twice");
    }
    windows
}
