//! The loads of a scheduler: one task a load, and a handle on all of them.
//!
//! ```text
//! statement ─▶ Loads ──command──▶ task of the load ─▶ Driver ─▶ journal, runner, sink
//!                │                      └ sleeps until the next fire
//!                └─ system tables read the journal
//! ```

use super::book::Book;
use super::clock::Clock;
use super::driver::{Driver, Tools};
use super::manifest::Manifests;
use super::run::RunRecord;
use super::schedule::Interval;
use super::spec::{Load, LoadSpec};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tidemill_core::config::Config;
use tidemill_core::{Code, ConnectorRegistry, Error, FencingToken, Journal, Result, WriteScope, Written};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Runs a load's query for one interval, into the sink's writers.
#[async_trait]
pub trait RunQuery: Send + Sync + std::fmt::Debug {
    /// Puts `interval` for `:from` and `:to`, calls `Sink::prepare` with the schema of the result, and writes
    /// every row with `Sink::writer`. `scope.task` is unique to this try; tasks add their own part to it.
    /// Nothing is committed here. Must be safe to drop, and to call again.
    async fn stage(&self, spec: &LoadSpec, interval: &Interval, scope: &WriteScope) -> Result<Vec<Written>>;
}

/// What a `RUN LOAD` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// Runs of this statement.
    pub loaded: Vec<RunRecord>,
    /// Earlier runs that had loaded parts of the interval.
    pub already: Vec<RunRecord>,
}

impl std::fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = |run: &RunRecord, verb: &str| {
            format!("{verb}: run {}, {} rows", run.run, run.rows_staged.unwrap_or(0))
        };
        let lines: Vec<String> = (self.already.iter().map(|run| words(run, "already loaded")))
            .chain(self.loaded.iter().map(|run| words(run, "loaded")))
            .collect();
        f.write_str(&lines.join("; "))
    }
}

/// What the loads of a process are built from.
#[derive(Debug)]
pub struct LoadsOptions<'a> {
    pub journal: Arc<dyn Journal>,
    /// The leader's.
    pub token: FencingToken,
    pub connectors: ConnectorRegistry,
    pub runner: Arc<dyn RunQuery>,
    pub clock: Arc<dyn Clock>,
    pub config: &'a Config,
}

/// A handle on all loads. Dropping it ends their tasks; the journal keeps where they stood.
#[derive(Debug)]
pub struct Loads {
    tools: Tools,
    tasks: Mutex<BTreeMap<String, LoadTask>>,
}

#[derive(Debug)]
struct LoadTask {
    load: Load,
    paused: Arc<AtomicBool>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl Drop for LoadTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
enum Command {
    /// Something changed: look again.
    Look,
    Run(Interval, oneshot::Sender<Result<RunOutcome>>),
}

impl Loads {
    /// Starts a task for every load in the journal; each goes on where it stood.
    pub async fn start(options: LoadsOptions<'_>) -> Result<Self> {
        let tools = Tools {
            book: Book { journal: options.journal, token: options.token },
            manifests: Manifests::new(options.config)?,
            connectors: options.connectors,
            runner: options.runner,
            clock: options.clock,
        };
        let mut tasks = BTreeMap::new();
        for load in tools.book.loads().await? {
            tasks.insert(load.spec.name.clone(), spawn(&tools, load)?);
        }
        Ok(Self { tools, tasks: Mutex::new(tasks) })
    }

    /// `CREATE LOAD`. The schedule begins with the interval that runs now.
    pub async fn create(&self, spec: LoadSpec) -> Result<Load> {
        let mut tasks = self.tasks.lock().await;
        // Faults in options show now, not at the first fire.
        self.tools.connectors.sink(&spec.sink)?;
        let now = self.tools.clock.now();
        let start = match spec.schedule()? {
            Some(schedule) => schedule.fire_at_or_before(now)?,
            None => now,
        };
        let id = format!("{}-{:x}", spec.name, now.timestamp_micros());
        let load = Load { id, spec, paused: false, created_at: now, start };
        self.tools.book.create(&load).await?;
        tasks.insert(load.spec.name.clone(), spawn(&self.tools, load.clone())?);
        Ok(load)
    }

    /// `DROP LOAD`: cancels what runs. Rows that are in the target stay there.
    pub async fn drop_load(&self, name: &str) -> Result<()> {
        let mut tasks = self.tasks.lock().await;
        find(&tasks, name)?;
        if let Some(mut stopped) = tasks.remove(name) {
            stopped.task.abort();
            // It must not write any more when its entries go; that it was aborted is no news.
            let _ = (&mut stopped.task).await;
            if let Err(error) = self.tools.book.delete(name).await {
                tasks.insert(name.to_owned(), spawn(&self.tools, stopped.load.clone())?);
                return Err(error);
            }
            self.tools.manifests.clear(&stopped.load.id).await;
        }
        Ok(())
    }

    /// `PAUSE LOAD`: a run that is going ends first, and no other begins by itself.
    pub async fn pause(&self, name: &str) -> Result<()> {
        self.set_paused(name, true).await
    }

    /// `RESUME LOAD`: goes on with everything that was missed.
    pub async fn resume(&self, name: &str) -> Result<()> {
        self.set_paused(name, false).await
    }

    async fn set_paused(&self, name: &str, paused: bool) -> Result<()> {
        let mut tasks = self.tasks.lock().await;
        find(&tasks, name)?;
        let Some(task) = tasks.get_mut(name) else { return Ok(()) };
        let load = Load { paused, ..task.load.clone() };
        self.tools.book.put_load(&load).await?;
        task.load = load;
        task.paused.store(paused, Ordering::Release);
        // When the queue is full the task looks anyway.
        let _ = task.commands.try_send(Command::Look);
        Ok(())
    }

    /// `RUN LOAD … FOR … TO …`: returns when everything asked for is loaded, or with the first error. The
    /// runs go on when the caller does not wait.
    pub async fn run_now(&self, name: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<RunOutcome> {
        let asked = Interval::new(from, to)?;
        let commands = find(&*self.tasks.lock().await, name)?.commands.clone();
        let gone =
            || Error::new(Code::Cancelled, format!("load `{name}` was dropped, or this leader is gone"));
        let (reply, answer) = oneshot::channel();
        commands.send(Command::Run(asked, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// For `tidemill.loads`.
    pub async fn list(&self) -> Result<Vec<Load>> {
        self.tools.book.loads().await
    }

    /// For `tidemill.load_runs`: every run of every load.
    pub async fn runs(&self) -> Result<Vec<RunRecord>> {
        self.tools.book.all_runs().await
    }

    /// Ends all tasks, and returns when none writes any more.
    pub async fn stop(&self) {
        for (_, mut stopped) in std::mem::take(&mut *self.tasks.lock().await) {
            stopped.task.abort();
            let _ = (&mut stopped.task).await;
        }
    }
}

fn find<'a>(tasks: &'a BTreeMap<String, LoadTask>, name: &str) -> Result<&'a LoadTask> {
    tasks.get(name).ok_or_else(|| {
        Error::new(Code::UnknownObject, format!("no load `{name}`"))
            .suggest(name, tasks.keys().map(String::as_str))
    })
}

fn spawn(tools: &Tools, load: Load) -> Result<LoadTask> {
    let driver = Driver::new(tools.clone(), load.clone())?;
    let (commands, queue) = mpsc::channel(16);
    let paused = Arc::new(AtomicBool::new(load.paused));
    let task = tokio::spawn(live(driver, paused.clone(), tools.clock.clone(), queue));
    Ok(LoadTask { load, paused, commands, task })
}

/// How long to wait with a journal that fails.
const JOURNAL_DELAY: TimeDelta = TimeDelta::seconds(5);

async fn live(
    mut driver: Driver,
    paused: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
    mut queue: mpsc::Receiver<Command>,
) {
    loop {
        let wake = match driver.work(paused.load(Ordering::Acquire)).await {
            Ok(wake) => wake,
            Err(error) if error.code == Code::Fenced => {
                tracing::info!("another leader has the loads now");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a load cannot go on");
                driver.forget();
                Some(clock.now() + JOURNAL_DELAY)
            }
        };
        let fire = async {
            match wake {
                Some(time) => clock.sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        let command = tokio::select! {
            biased;
            command = queue.recv() => command,
            () = fire => Some(Command::Look),
        };
        match command {
            None => return,
            Some(Command::Look) => {}
            Some(Command::Run(asked, reply)) => {
                let outcome = driver.run_now(asked).await;
                if outcome.is_err() {
                    driver.forget();
                }
                // Nobody waits any more: the runs are in the journal.
                let _ = reply.send(outcome);
            }
        }
    }
}
