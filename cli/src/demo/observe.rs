//! What the engine says about itself, by its system tables and the demo's own table.

use super::reconcile::{Counted, Observed, Windows};
use super::sql::{Rows, Sql};
use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::{Duration, Instant};

const STATUS: &str =
    "SELECT p.status, p.epoch, p.read, p.dead_letters, p.dropped, p.late, p.duplicates, p.error,
  (SELECT sum(lag) FROM tidemill.lag WHERE pipeline = 'revenue') AS lag,
  (SELECT avg(duration_ms) FROM
     (SELECT duration_ms FROM tidemill.epochs WHERE pipeline = 'revenue' ORDER BY epoch DESC LIMIT 10)
  ) AS epoch_ms
FROM tidemill.pipelines AS p WHERE p.name = 'revenue'";

const LATEST: &str = "SELECT CAST(date_part('epoch', window_start) AS BIGINT) AS second,
  sum(events) AS events, sum(revenue) AS revenue
FROM revenue GROUP BY window_start ORDER BY window_start DESC LIMIT 3";

const WINDOWS: &str = "SELECT CAST(date_part('epoch', window_start) AS BIGINT) AS second, region,
  sum(events) AS events,
  sum(CASE WHEN event_type = 'purchase' THEN events ELSE 0 END) AS purchases,
  sum(CASE WHEN event_type = 'purchase' THEN revenue ELSE 0 END) AS revenue
FROM revenue GROUP BY window_start, region";

const SPAN: &str = "SELECT CAST(date_part('epoch', min(window_start)) AS BIGINT) AS first,
  CAST(date_part('epoch', max(window_start)) AS BIGINT) AS last FROM revenue";

const LOADED: &str = "SELECT status, \"rows\", counted FROM tidemill.load_runs WHERE load = 'revenue_export'";

const WINDOWED: &str = "SELECT sum(events) FROM revenue";
const TABLE_ROWS: &str = "SELECT count(*) FROM revenue";
const DEAD_LETTERS: &str = "SELECT count(*) FROM revenue_dead_letters";

/// How long a new topic may take to be seen by other clients.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The pipeline at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    pub(super) status: String,
    pub(super) epoch: u64,
    pub(super) read: u64,
    pub(super) dead_letters: u64,
    pub(super) dropped: u64,
    pub(super) late: u64,
    pub(super) duplicates: u64,
    pub(super) error: Option<String>,
    /// Events that wait in Kafka; none while that is not known.
    pub(super) lag: Option<u64>,
    /// What the last epochs took on average.
    pub(super) epoch_ms: Option<f64>,
}

impl Status {
    fn new(rows: &Rows) -> Result<Self> {
        ensure!(rows.len() == 1, "tidemill.pipelines shows {} pipelines `revenue`", rows.len());
        let lag = rows.int(0, "lag")?;
        Ok(Self {
            status: rows.text(0, "status")?.unwrap_or_default(),
            epoch: rows.count(0, "epoch")?,
            read: rows.count(0, "read")?,
            dead_letters: rows.count(0, "dead_letters")?,
            dropped: rows.count(0, "dropped")?,
            late: rows.count(0, "late")?,
            duplicates: rows.count(0, "duplicates")?,
            error: rows.text(0, "error")?,
            lag: lag.and_then(|lag| u64::try_from(lag).ok()),
            epoch_ms: rows.float(0, "epoch_ms")?,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.status == "failed" {
            bail!("the pipeline has failed: {}", self.error.as_deref().unwrap_or("without a reason"));
        }
        Ok(())
    }
}

/// One window, all regions and types together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WindowTotal {
    pub(super) start: DateTime<Utc>,
    pub(super) events: u64,
    pub(super) revenue: f64,
}

pub(super) async fn status(sql: &Sql) -> Result<Status> {
    Status::new(&sql.rows(STATUS).await?)
}

/// The latest closed windows; none while the table has no snapshot yet.
pub(super) async fn windows(sql: &Sql) -> Vec<WindowTotal> {
    let rows = match sql.rows(LATEST).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::debug!(%error, "no windows to show");
            return Vec::new();
        }
    };
    let window = |row| -> Result<WindowTotal> {
        Ok(WindowTotal {
            start: time(rows.int(row, "second")?).context("a window without a start")?,
            events: rows.count(row, "events")?,
            revenue: rows.float(row, "revenue")?.unwrap_or(0.0),
        })
    };
    (0..rows.len()).filter_map(|row| window(row).ok()).collect()
}

fn time(second: Option<i64>) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(second?, 0)
}

/// An interval that holds the start of every window; `None` without windows. It ends right behind the last
/// one, because a load takes no interval that ends in the future.
pub(super) async fn span(sql: &Sql) -> Result<Option<(DateTime<Utc>, DateTime<Utc>)>> {
    let rows = sql.rows(SPAN).await?;
    let behind = |last: DateTime<Utc>| last + TimeDelta::milliseconds(1);
    Ok(time(rows.int(0, "first")?).zip(time(rows.int(0, "last")?).map(behind)))
}

/// Everything that the reconciliation needs. The pipeline must be drained and the load done.
pub(super) async fn observe(sql: &Sql) -> Result<Observed> {
    let status = status(sql).await?;
    let runs = sql.rows(LOADED).await?;
    let mut counted_rows = Some(0);
    let mut loaded_rows = 0;
    for row in 0..runs.len() {
        let state = runs.text(row, "status")?.unwrap_or_default();
        ensure!(["reconciled", "unproved"].contains(&state.as_str()), "a run of the load is {state}");
        loaded_rows += runs.count(row, "rows")?;
        let counted = runs.int(row, "counted")?.and_then(|rows| u64::try_from(rows).ok());
        counted_rows = counted_rows.zip(counted).map(|(sum, counted)| sum + counted);
    }
    Ok(Observed {
        windowed: sql.number(WINDOWED).await?,
        read: status.read,
        duplicates: status.duplicates,
        late: status.late,
        refused: status.dead_letters,
        dropped: status.dropped,
        dead_letters: sql.number(DEAD_LETTERS).await?,
        windows: all_windows(&sql.rows(WINDOWS).await?)?,
        table_rows: sql.number(TABLE_ROWS).await?,
        loaded_rows,
        counted_rows,
    })
}

fn all_windows(rows: &Rows) -> Result<Windows> {
    (0..rows.len())
        .map(|row| {
            let start_ms = rows.int(row, "second")?.context("a window without a start")? * 1000;
            let counted = Counted {
                events: rows.count(row, "events")?,
                purchases: rows.count(row, "purchases")?,
                revenue_cents: (rows.float(row, "revenue")?.unwrap_or(0.0) * 100.0).round() as u64,
            };
            Ok(((start_ms, rows.text(row, "region")?.unwrap_or_default()), counted))
        })
        .collect()
}

/// Until every partition of the topic has a leader that answers.
pub(super) async fn topic_is_there(brokers: &str, topic: &str) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("allow.auto.create.topics", "false")
        .create()?;
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let look = move || {
        let begun = Instant::now();
        while let Err(error) = ask_leaders(&consumer, &topic) {
            ensure!(begun.elapsed() < TOPIC_TIMEOUT, "Kafka at {brokers}: {error:#}. Next: check --brokers");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    };
    tokio::task::spawn_blocking(look).await?
}

fn ask_leaders(consumer: &BaseConsumer, topic: &str) -> Result<()> {
    let seen = consumer.fetch_metadata(Some(topic), ANSWER_TIMEOUT)?;
    let partitions = seen.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
    let partitions: Vec<i32> = partitions.map(rdkafka::metadata::MetadataPartition::id).collect();
    ensure!(!partitions.is_empty(), "there is no topic `{topic}`");
    for partition in partitions {
        consumer.fetch_watermarks(topic, partition, ANSWER_TIMEOUT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_sql::Statement;

    #[test]
    fn every_question_is_a_query_that_the_front_end_reads() {
        for query in [STATUS, LATEST, WINDOWS, SPAN, LOADED, WINDOWED, TABLE_ROWS, DEAD_LETTERS] {
            let parsed = tidemill_sql::parse(query, "public");
            assert!(matches!(parsed, Ok(Statement::Query(_))), "{parsed:?} from {query}");
        }
    }
}
