//! The SQL of the demo, as a user would write it.

use super::folder::CONFIG;
use super::{DemoArgs, WINDOW_SECS};
use chrono::{DateTime, TimeDelta, Utc};
use std::path::PathBuf;

/// Names that must be new where the systems outlive the demo.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) topic: String,
    /// The table or folder that the load fills.
    pub(super) export: String,
}

impl Names {
    pub(super) fn new(shared: bool, now: DateTime<Utc>) -> Self {
        let suffix = if shared { now.format("_%Y%m%d_%H%M%S").to_string() } else { String::new() };
        Self { topic: format!("events_raw{suffix}"), export: format!("revenue{suffix}") }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Files { folder: PathBuf },
    ClickHouse { url: String },
}

pub(super) struct Step {
    pub(super) title: &'static str,
    pub(super) text: String,
}

pub(super) const STOP: &str = "STOP PIPELINE revenue WITH DRAIN";

/// What must be created, in order.
pub(super) fn create(names: &Names, brokers: &str, target: &Target, now: DateTime<Utc>) -> Vec<Step> {
    vec![
        Step { title: "CREATE SOURCE events", text: source(&names.topic, brokers) },
        Step { title: "CREATE STREAMING TABLE revenue", text: streaming_table() },
        Step { title: "CREATE CONNECTION export", text: connection(target) },
        Step { title: "CREATE LOAD revenue_export", text: load(&target_of(names, target), now) },
    ]
}

fn source(topic: &str, brokers: &str) -> String {
    format!(
        "CREATE SOURCE events (
  event_id VARCHAR NOT NULL,
  event_type VARCHAR NOT NULL,
  \"timestamp\" TIMESTAMP NOT NULL,
  user_id VARCHAR,
  data STRUCT<product_id VARCHAR, price DOUBLE, quantity BIGINT>,
  metadata STRUCT<region VARCHAR, device VARCHAR>,
  WATERMARK FOR \"timestamp\" AS \"timestamp\" - INTERVAL '5 seconds')
WITH (connector = 'kafka', topic = {topic}, 'properties.bootstrap.servers' = {brokers})
FORMAT PLAIN ENCODE JSON",
        topic = literal(topic),
        brokers = literal(brokers),
    )
}

/// Without a WHERE, so that every event must turn up somewhere.
fn streaming_table() -> String {
    format!(
        "CREATE STREAMING TABLE revenue
  (CONSTRAINT priced EXPECT (data['price'] >= 0) ON VIOLATION DEAD LETTER)
  WITH (trigger = '1 second')
AS SELECT window_start, window_end, metadata['region'] AS region, event_type,
          count(*) AS events, sum(data['price'] * data['quantity']) AS revenue
   FROM TUMBLE(DEDUPLICATE(events, event_id), \"timestamp\", INTERVAL '{WINDOW_SECS} seconds')
   GROUP BY window_start, window_end, metadata['region'], event_type"
    )
}

fn connection(target: &Target) -> String {
    match target {
        // The folder is in the load's target.
        Target::Files { .. } => {
            "CREATE CONNECTION export WITH (connector = 'files', format = 'parquet')".to_owned()
        }
        Target::ClickHouse { url } => format!(
            "CREATE CONNECTION export WITH (connector = 'clickhouse', url = {}, \
             password = 'env:TIDEMILL_CLICKHOUSE_PASSWORD')",
            literal(url)
        ),
    }
}

/// As the load names it: a table, or a folder in quotes.
fn target_of(names: &Names, target: &Target) -> String {
    match target {
        Target::Files { folder } => {
            format!("\"{}\"", folder.join(&names.export).display().to_string().replace('"', "\"\""))
        }
        Target::ClickHouse { .. } => names.export.clone(),
    }
}

/// Daily, at the minute before now: it fires in a day, so that the demo's own RUN LOAD comes first.
fn load(target: &str, now: DateTime<Utc>) -> String {
    let at = (now - TimeDelta::minutes(1)).format("%-M %-H * * *");
    format!(
        "CREATE LOAD revenue_export SCHEDULE CRON '{at}' AT TIME ZONE 'UTC' INTO export.{target}
AS SELECT * FROM revenue WHERE window_start >= :from AND window_start < :to"
    )
}

pub(super) fn run_load(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
    format!("RUN LOAD revenue_export FOR '{}' TO '{}'", time(from), time(to))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What to try next, for people.
pub(super) fn what_next(args: &DemoArgs, names: &Names, target: &Target) -> String {
    let folder = args.keep.display();
    let shell = match &args.server {
        Some(server) => format!("tidemill sql --server {server}"),
        None => format!("tidemill --config {folder}/{CONFIG} sql"),
    };
    let exported = match target {
        Target::Files { folder } => format!("Parquet files in {}", folder.join(&names.export).display()),
        Target::ClickHouse { url } => format!("ClickHouse's table {} at {url}", names.export),
    };
    let lake = match &args.server {
        Some(_) => "Delta tables under the lake root of the server".to_owned(),
        None => format!("Delta tables under {folder}/lake"),
    };
    format!(
        "
where it is: {lake}; {exported}
what to try next:
  {shell} -c \"SELECT region, sum(events) AS events, round(sum(revenue), 2) AS revenue FROM revenue GROUP BY region\"
  {shell} -c \"SELECT reason, payload FROM revenue_dead_letters LIMIT 5\"
  {shell} -c \"SELECT * FROM tidemill.epochs ORDER BY epoch DESC LIMIT 10\"
  {shell}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_sql::Statement;

    fn parse(text: &str) -> Statement {
        tidemill_sql::parse(text, "public").unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    #[test]
    fn every_statement_is_one_that_the_front_end_reads() {
        let now = DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        let names = Names::new(true, now);
        assert_eq!(names.topic, "events_raw_20260101_000000");
        for target in [
            Target::Files { folder: PathBuf::from("/it's/here") },
            Target::ClickHouse { url: "http://127.0.0.1:8123".to_owned() },
        ] {
            let steps = create(&names, "127.0.0.1:9092", &target, now);
            let kinds = steps.iter().map(|step| parse(&step.text)).collect::<Vec<_>>();
            assert!(matches!(
                kinds.as_slice(),
                [
                    Statement::CreateSource(_),
                    Statement::CreateStreamingTable(_),
                    Statement::CreateConnection(_),
                    Statement::CreateLoad(_)
                ]
            ));
        }
        let Statement::CreateLoad(create) = parse(&load("revenue", now)) else { panic!("not a load") };
        assert_eq!(create.load.schedule.unwrap().cron, "59 23 * * *");
        assert!(matches!(parse(STOP), Statement::Control(_)));
        let folder = Target::Files { folder: PathBuf::from("/it's \"here\"") };
        let Statement::CreateLoad(create) = parse(&load(&target_of(&names, &folder), now)) else {
            panic!("not a load")
        };
        assert_eq!(create.load.target, ["/it's \"here\"/revenue_20260101_000000"]);
        let Statement::RunLoad(run) = parse(&run_load(now, now + TimeDelta::milliseconds(3_600_001))) else {
            panic!("not a run")
        };
        assert_eq!(run.interval, Some((now, now + TimeDelta::milliseconds(3_600_001))));
    }
}
