//! `tidemill demo`: the main job from end to end, and a proof that nothing was lost on the way.
//!
//! ```text
//! generate ─▶ Kafka ─▶ SOURCE events ─▶ STREAMING TABLE revenue ─▶ LOAD revenue_export
//!    │                                       │ counts, windows            │ rows
//!    └────────── its own counts ──▶ reconcile ◀──────────────────────────┘
//! ```
//!
//! Everything but the generator is reached through SQL, as a user would; the generator alone knows the truth.

mod broker;
mod folder;
mod observe;
mod reconcile;
mod sql;
mod statements;
mod view;

use broker::Broker;

use crate::generate::{self, GenerateArgs, Summary};
use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use observe::Status;
use sql::Sql;
use statements::{Names, Target};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidemill_scheduler::frontend::api::Frontend;
use tokio::task::JoinHandle;
use view::View;

const PARTITIONS: i32 = 4;
const WINDOW_SECS: u32 = 10;
/// Shares of events that are late, repeated, and no event at all.
const SHARES: (f64, f64, f64) = (0.01, 0.02, 0.01);
/// The embedded broker holds every event in memory, about 350 bytes each.
const MOST_EMBEDDED_EVENTS: f64 = 10_000_000.0;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After the end of the producer: how long nothing may move before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// For how long events are produced; Ctrl-C ends it earlier.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u32,
    /// Events a second.
    #[arg(long, default_value_t = 2000.0)]
    pub(crate) rate: f64,
    /// The same seed gives the same events.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// The folder for the lake, the journal and the export. What an earlier demo left there is removed.
    #[arg(long, value_name = "FOLDER", default_value = "tidemill-demo")]
    pub(crate) keep: PathBuf,
    /// Kafka brokers, as `host:port`, separated by commas, in place of the embedded one.
    #[arg(long)]
    pub(crate) brokers: Option<String>,
    /// Flight SQL address of a running server, in place of an engine in this process.
    #[arg(long, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// ClickHouse to load into, in place of Parquet files. Its password is taken from the scheduler's
    /// environment, TIDEMILL_CLICKHOUSE_PASSWORD.
    #[arg(long, value_name = "URL")]
    pub(crate) clickhouse: Option<String>,
}

impl DemoArgs {
    /// Makes the data folder, empty. To be called before an engine is started on it.
    ///
    /// # Errors
    /// When it holds anything that no demo has made.
    pub(crate) fn prepare_folder(&self) -> Result<PathBuf> {
        folder::prepare(&self.keep)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.seconds > 0, "--seconds must be above 0");
        ensure!(self.rate >= 1.0 && self.rate.is_finite(), "--rate must be 1 or more");
        let events = self.rate * f64::from(self.seconds);
        ensure!(
            self.brokers.is_some() || events <= MOST_EMBEDDED_EVENTS,
            "{events} events are too many for the embedded broker, which holds them in memory; \
             the most are {MOST_EMBEDDED_EVENTS}. Next: less --rate or --seconds, or --brokers"
        );
        Ok(())
    }

    fn generator(&self, brokers: &str, topic: &str, start: DateTime<Utc>) -> GenerateArgs {
        let (late_share, duplicate_share, malformed_share) = SHARES;
        GenerateArgs {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            partitions: PARTITIONS,
            properties: Vec::new(),
            rate: self.rate,
            count: (self.rate * f64::from(self.seconds)) as u64,
            seed: self.seed,
            start: Some(start),
            event_rate: None,
            late_share,
            // So far behind that no late event falls into a window of proper ones.
            lateness_secs: self.seconds + 600,
            duplicate_share,
            malformed_share,
            window_secs: Some(WINDOW_SECS),
        }
    }
}

/// What the demo runs on: an engine whose lake and journal know none of its names.
pub(crate) enum Place {
    Here(Arc<dyn Frontend>),
    /// Flight SQL address.
    Server(String),
}

/// Runs the demo.
///
/// # Errors
/// When a step fails; the message says which. A run that does not reconcile is an exit code, not an error.
pub(crate) async fn run(args: DemoArgs, place: Place) -> Result<ExitCode> {
    args.check()?;
    let broker = match &args.brokers {
        Some(_) => None,
        None => Some(Broker::start(0).await?),
    };
    let brokers = match (&args.brokers, &broker) {
        (Some(brokers), _) => brokers.clone(),
        (None, Some(broker)) => broker.address.to_string(),
        (None, None) => bail!("neither brokers nor an embedded one"),
    };
    let names = Names::new(args.brokers.is_some() || args.server.is_some(), Utc::now());
    let sql = match place {
        Place::Here(frontend) => Sql::local(frontend).await?,
        Place::Server(server) => Sql::remote(&server).await?,
    };
    let demo = Demo { target: target(&args)?, args, brokers, names, sql, view: View::new() };
    let code = tokio::select! {
        code = demo.play() => code,
        // The first Ctrl-C only ends the producing.
        pressed = interrupted_twice() => pressed.and_then(|()| bail!("interrupted before the end")),
    };
    if let Some(broker) = broker {
        broker.stop().await;
    }
    code
}

async fn interrupted_twice() -> Result<()> {
    tokio::signal::ctrl_c().await?;
    Ok(tokio::signal::ctrl_c().await?)
}

fn target(args: &DemoArgs) -> Result<Target> {
    Ok(match &args.clickhouse {
        Some(url) => Target::ClickHouse { url: url.clone() },
        None => Target::Files { folder: std::path::absolute(args.keep.join("export"))? },
    })
}

struct Demo {
    args: DemoArgs,
    brokers: String,
    names: Names,
    target: Target,
    sql: Sql,
    view: View,
}

/// The generator at work.
struct Producing {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Summary>>,
}

impl Producing {
    fn start(generator: GenerateArgs) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move { generate::produce(&generator, stopped).await });
        Self { stop, task }
    }
}

impl Drop for Producing {
    fn drop(&mut self) {
        // Its thread sees only this; aborting the task would not end it.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Demo {
    async fn play(&self) -> Result<ExitCode> {
        let start = Utc::now();
        let generator = self.args.generator(&self.brokers, &self.names.topic, start);
        self.view.step(&format!("topic {} on {}", self.names.topic, self.brokers));
        // The first events make the topic, without which the source could not be created.
        let mut producing = Producing::start(generator);
        self.await_topic(&mut producing).await?;
        for statement in statements::create(&self.names, &self.brokers, &self.target, start) {
            self.view.step(statement.title);
            self.sql.run(&statement.text).await.with_context(|| statement.text.clone())?;
        }
        let truth = self.watch(producing).await?;
        self.view.step(&format!("{} events produced; reading what is left", truth.produced));
        self.await_status(|status| status.read >= truth.produced && status.lag == Some(0)).await?;
        self.view.step("STOP PIPELINE … WITH DRAIN: closing every window");
        self.sql.run(statements::STOP).await?;
        self.await_status(|status| status.status == "drained").await?;
        self.view.step("RUN LOAD");
        if let Some((from, to)) = observe::span(&self.sql).await? {
            // The last window may end in a moment; its rows are there already.
            self.sql.run(&statements::run_load(from, to.min(Utc::now()))).await?;
        }
        let observed = observe::observe(&self.sql).await?;
        let verdict = reconcile::reconcile(&truth, &observed);
        for disagreement in &verdict.disagreements {
            eprintln!("does not agree: {disagreement}");
        }
        println!("{}", verdict.line);
        eprintln!("{}", statements::what_next(&self.args, &self.names, &self.target));
        Ok(if verdict.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Until the topic can be seen, or the producer has failed.
    async fn await_topic(&self, producing: &mut Producing) -> Result<()> {
        let looking = observe::topic_is_there(&self.brokers, &self.names.topic);
        tokio::select! {
            there = looking => there,
            ended = &mut producing.task => match ended? {
                Ok(_) => bail!("the producer ended before its topic `{}` appeared", self.names.topic),
                Err(error) => Err(error),
            },
        }
    }

    /// Shows what happens until the producer is done, or Ctrl-C.
    async fn watch(&self, mut producing: Producing) -> Result<Summary> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pressed = pin!(tokio::signal::ctrl_c());
        let mut interrupted = false;
        loop {
            tokio::select! {
                ended = &mut producing.task => return ended?.context("producing events"),
                _ = looks.tick() => {
                    let status = observe::status(&self.sql).await?;
                    self.view.show(&status, &observe::windows(&self.sql).await);
                    status.check()?;
                }
                pressed = &mut pressed, if !interrupted => {
                    pressed?;
                    interrupted = true;
                    self.view.step("Ctrl-C: no more events; the rest is finished");
                    producing.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Until `done`, as long as anything moves.
    async fn await_status(&self, done: impl Fn(&Status) -> bool) -> Result<()> {
        let mut last = (Instant::now(), None);
        loop {
            let status = observe::status(&self.sql).await?;
            self.view.show(&status, &observe::windows(&self.sql).await);
            status.check()?;
            if done(&status) {
                return Ok(());
            }
            let mark = (status.epoch, status.read, status.status.clone());
            if last.1.as_ref() != Some(&mark) {
                last = (Instant::now(), Some(mark));
            }
            ensure!(
                last.0.elapsed() < PATIENCE,
                "the pipeline has not moved for {} s: {} at epoch {}, {} events read, lag {:?}",
                PATIENCE.as_secs(),
                status.status,
                status.epoch,
                status.read,
                status.lag
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        demo: DemoArgs,
    }

    fn parse(args: &[&str]) -> DemoArgs {
        Command::parse_from(std::iter::once("demo").chain(args.iter().copied())).demo
    }

    #[test]
    fn late_events_cannot_fall_into_a_proper_window() {
        let args = parse(&["--seconds", "900"]);
        args.check().unwrap();
        let generator = args.generator("b:1", "t", Utc::now());
        assert_eq!(generator.count, 1_800_000);
        assert!(generator.lateness_secs >= 900 + WINDOW_SECS);
        generator.spec().unwrap();
    }

    #[test]
    fn refuses_what_would_fill_the_memory_and_says_what_to_do() {
        let error = parse(&["--rate", "200000"]).check().unwrap_err();
        assert!(error.to_string().contains("--brokers"), "{error}");
        parse(&["--rate", "200000", "--brokers", "b:1"]).check().unwrap();
        parse(&["--rate", "0"]).check().unwrap_err();
    }
}
