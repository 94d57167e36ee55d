//! `tidemill generate`: synthetic e-commerce events, the same for the same seed.
//!
//! ```text
//! EventStream (pure: spec, seed) ─▶ produce (rate, Kafka) ─▶ Summary (one JSON line)
//! ```
//!
//! Who wants to check a pipeline runs an [`EventStream`] of the same spec and seed beside it and counts.

mod events;
mod produce;
mod tally;

pub(crate) use events::EventSpec;
pub(crate) use produce::{Summary, produce};
#[cfg(test)]
pub(crate) use {produce::WindowSummary, tally::WindowTally};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Events a second of event time when they are produced as fast as possible.
const UNLIMITED_EVENT_RATE: f64 = 10_000.0;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GenerateArgs {
    /// Brokers to begin with, as `host:port`, separated by commas.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub brokers: String,
    /// The topic to write; created when it is not there.
    #[arg(long, default_value = "events_raw")]
    pub topic: String,
    /// Partitions of a topic that is created.
    #[arg(long, default_value_t = 8)]
    pub partitions: i32,
    /// A setting of librdkafka, as `key=value`; may be given several times.
    #[arg(long = "property", value_name = "KEY=VALUE")]
    pub properties: Vec<String>,
    /// Events a second; 0 for as many as possible.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// How many events; 0 for no end (until Ctrl-C).
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// The same seed, start and shares give the same events.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Event time of the first event, in RFC 3339; now by default.
    #[arg(long)]
    pub start: Option<DateTime<Utc>>,
    /// Events a second of event time; `--rate` by default, or 10,000 when that is 0.
    #[arg(long)]
    pub event_rate: Option<f64>,
    /// Share of events whose time lies far behind, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub late_share: f64,
    /// How far behind, in seconds.
    #[arg(long, default_value_t = 600)]
    pub lateness_secs: u32,
    /// Share of events that repeat one of the last few seconds, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub duplicate_share: f64,
    /// Share of records that are no proper event, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub malformed_share: f64,
    /// Adds to the summary what each window of so many seconds holds by region.
    #[arg(long, value_name = "SECONDS")]
    pub window_secs: Option<u32>,
}

impl GenerateArgs {
    /// What the stream of events is made from.
    ///
    /// # Errors
    /// For shares and rates that make no sense.
    pub(crate) fn spec(&self) -> Result<EventSpec> {
        let shares = [self.late_share, self.duplicate_share, self.malformed_share];
        ensure!(
            shares.iter().all(|share| (0.0..=1.0).contains(share)) && shares.iter().sum::<f64>() <= 1.0,
            "--late-share, --duplicate-share and --malformed-share must lie between 0 and 1, also together"
        );
        ensure!(self.rate >= 0.0 && self.rate.is_finite(), "--rate must be 0 or more");
        let fallback = if self.rate > 0.0 { self.rate } else { UNLIMITED_EVENT_RATE };
        let events_per_second = self.event_rate.unwrap_or(fallback);
        ensure!(events_per_second > 0.0 && events_per_second.is_finite(), "--event-rate must be above 0");
        ensure!(self.window_secs != Some(0), "--window-secs must be above 0");
        Ok(EventSpec {
            start_ms: self.start.unwrap_or_else(Utc::now).timestamp_millis(),
            events_per_second,
            late_share: self.late_share,
            lateness_ms: i64::from(self.lateness_secs) * 1000,
            duplicate_share: self.duplicate_share,
            malformed_share: self.malformed_share,
        })
    }
}

/// Produces until the count is reached or Ctrl-C, then prints the summary as one line of JSON.
///
/// # Errors
/// When the brokers cannot be reached, refuse the topic or lose a record.
pub(crate) async fn run(args: GenerateArgs) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopped.store(true, Ordering::Relaxed);
        }
    });
    let summary = produce(&args, stop).await.with_context(|| format!("generating into `{}`", args.topic));
    interrupt.abort();
    println!("{}", serde_json::to_string(&summary?)?);
    Ok(())
}
