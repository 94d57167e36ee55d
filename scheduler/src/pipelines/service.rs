//! All pipelines of this scheduler: created, paused, resumed, drained, dropped, and looked at.

use super::driver::{Driver, Observed, participants};
use super::ledger::Ledger;
use super::record::EpochRecord;
use super::runner::EpochRunner;
use super::{PipelineRecord, Status};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidemill_core::epoch::Manifest;
use tidemill_core::{Available, Code, Error, Expect, FencingToken, Journal, Result, SplitId};
use tidemill_engine::Services;
use tidemill_engine::exec::dead_letter_schema;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PREFIX: &str = "pipeline/";

/// A pipeline as `SHOW PIPELINES` and the system tables see it.
#[derive(Clone, Debug)]
pub struct PipelineView {
    pub record: PipelineRecord,
    pub last: Option<Manifest>,
    pub available: BTreeMap<SplitId, Available>,
    pub history: Vec<EpochRecord>,
    /// The transient error that is being waited out.
    pub trouble: Option<Error>,
}

struct Running {
    record: PipelineRecord,
    observed: Arc<Mutex<Observed>>,
    wanted: watch::Sender<Status>,
    task: Option<JoinHandle<()>>,
}

/// See the module.
pub struct Pipelines {
    services: Arc<Services>,
    journal: Arc<dyn Journal>,
    token: FencingToken,
    runner: Arc<dyn EpochRunner>,
    /// One statement at a time changes pipelines; looking at them never waits for it.
    changing: tokio::sync::Mutex<()>,
    running: Arc<Mutex<HashMap<String, Running>>>,
}

impl std::fmt::Debug for Pipelines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipelines").finish_non_exhaustive()
    }
}

impl Pipelines {
    /// Takes up every pipeline of the journal.
    pub async fn start(
        services: Arc<Services>,
        journal: Arc<dyn Journal>,
        token: FencingToken,
        runner: Arc<dyn EpochRunner>,
    ) -> Result<Arc<Self>> {
        let pipelines = Arc::new(Self {
            services,
            journal,
            token,
            runner,
            changing: tokio::sync::Mutex::default(),
            running: Arc::default(),
        });
        for (key, found) in pipelines.journal.list(PREFIX).await? {
            let record: PipelineRecord = serde_json::from_slice(&found.value)
                .map_err(|error| Error::from(error).context(format!("journal entry {key}")))?;
            pipelines.launch(record).await?;
        }
        Ok(pipelines)
    }

    /// Creates the pipeline's tables and starts it. `id` and `start` of the record are filled in here.
    pub async fn create(&self, mut record: PipelineRecord, schema: &SchemaRef) -> Result<()> {
        let _changing = self.changing.lock().await;
        let key = format!("{PREFIX}{}", record.name);
        if self.journal.get(&key).await?.is_some() {
            return Err(Error::new(Code::AlreadyExists, format!("there is a pipeline `{}`", record.name))
                .hint("DROP STREAMING TABLE it first, or use IF NOT EXISTS"));
        }
        // The source is asked before anything is created: an unknown topic leaves nothing behind.
        let source = self.services.connectors.source(&record.definition.source.spec)?;
        if !source.capabilities().replayable {
            let connector = &record.definition.source.spec.connector;
            return Err(Error::new(
                Code::Unsupported,
                format!("source connector `{connector}` cannot read again"),
            )
            .hint("exactly once needs a source that can, such as `kafka`"));
        }
        record.start = source.start().await?;
        self.services.connectors.sink(&record.table)?.prepare(schema).await?;
        self.services.connectors.sink(&record.dead_letters)?.prepare(&dead_letter_schema()).await?;
        self.store(&record, Expect::Absent).await?;
        self.launch(record).await
    }

    pub async fn pause(&self, name: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.set(name, Status::Paused).await
    }

    pub async fn resume(&self, name: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        if let Status::Drained = self.record(name)?.status {
            return Err(Error::new(Code::InvalidStatement, format!("pipeline `{name}` was drained"))
                .hint("its windows are all closed; create a new streaming table to go on"));
        }
        self.set(name, Status::Running).await
    }

    /// Reads what is there, closes every window, and ends. Returns when that is done.
    pub async fn drain(&self, name: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        self.set(name, Status::Draining).await?;
        let task = self.running.lock().get_mut(name).and_then(|running| running.task.take());
        if let Some(task) = task {
            task.await.map_err(|error| Error::internal(format!("pipeline `{name}`: {error}")))?;
        }
        match self.record(name)?.status {
            Status::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Stops the pipeline and forgets it. Its tables stay.
    pub async fn remove(&self, name: &str) -> Result<PipelineRecord> {
        let _changing = self.changing.lock().await;
        let record = self.record(name)?;
        self.halt(name).await;
        self.journal.delete(self.token, &format!("{PREFIX}{name}"), Expect::Anything).await?;
        self.running.lock().remove(name);
        Ok(record)
    }

    /// Ends every driver after its epoch, for a clean shutdown. The journal keeps what was wanted.
    pub async fn shutdown(&self) {
        let _changing = self.changing.lock().await;
        let names: Vec<String> = self.running.lock().keys().cloned().collect();
        for name in names {
            self.halt(&name).await;
        }
    }

    pub fn exists(&self, name: &str) -> bool {
        self.running.lock().contains_key(name)
    }

    /// All pipelines, by name.
    pub fn list(&self) -> Vec<PipelineView> {
        let running = self.running.lock();
        let mut views: Vec<PipelineView> = running
            .values()
            .map(|running| {
                let observed = running.observed.lock();
                PipelineView {
                    record: running.record.clone(),
                    last: observed.last.clone(),
                    available: observed.available.clone(),
                    history: observed.history.iter().cloned().collect(),
                    trouble: observed.trouble.clone(),
                }
            })
            .collect();
        views.sort_by(|a, b| a.record.name.cmp(&b.record.name));
        views
    }

    fn record(&self, name: &str) -> Result<PipelineRecord> {
        let running = self.running.lock();
        match running.get(name) {
            Some(running) => Ok(running.record.clone()),
            None => Err(Error::new(Code::UnknownObject, format!("no pipeline `{name}`"))
                .suggest(name, running.keys().map(String::as_str))),
        }
    }

    /// Stops the driver, writes the new status down, and starts it again if there is something to do.
    async fn set(&self, name: &str, status: Status) -> Result<()> {
        let mut record = self.record(name)?;
        self.halt(name).await;
        record.status = status;
        self.store(&record, Expect::Anything).await?;
        self.launch(record).await
    }

    /// Waits until the driver has ended its epoch.
    async fn halt(&self, name: &str) {
        let task = {
            let mut running = self.running.lock();
            let Some(running) = running.get_mut(name) else { return };
            running.wanted.send_replace(Status::Paused);
            running.task.take()
        };
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    async fn store(&self, record: &PipelineRecord, expect: Expect) -> Result<()> {
        let body = Bytes::from(serde_json::to_vec(record)?);
        self.journal.put(self.token, &format!("{PREFIX}{}", record.name), body, expect).await?;
        Ok(())
    }

    async fn launch(&self, record: PipelineRecord) -> Result<()> {
        let name = record.name.clone();
        let ledger = Ledger::new(self.journal.clone(), self.token, record.id.clone(), &self.services)?;
        let earlier = self.running.lock().remove(&name).map(|running| running.observed);
        let observed = match earlier {
            Some(observed) => observed,
            None => {
                let last = ledger.manifest(ledger.done().await?).await?;
                Arc::new(Mutex::new(Observed { last, ..Observed::default() }))
            }
        };
        let (wanted, asked) = watch::channel(record.status.clone());
        let task = match record.status.is_active() {
            false => None,
            true => {
                let connectors = &self.services.connectors;
                let driver = Driver {
                    source: connectors.source(&record.definition.source.spec)?,
                    sinks: participants(
                        connectors.sink(&record.table)?,
                        connectors.sink(&record.dead_letters)?,
                    ),
                    record: record.clone(),
                    ledger,
                    runner: self.runner.clone(),
                    observed: observed.clone(),
                    wanted: asked,
                };
                Some(tokio::spawn(self.supervise(driver)))
            }
        };
        self.running.lock().insert(name, Running { record, observed, wanted, task });
        Ok(())
    }

    /// Runs the driver, and writes down how it ended, unless it was only asked to stop.
    fn supervise(&self, driver: Driver) -> impl Future<Output = ()> + Send + use<> {
        let (journal, token, running) = (self.journal.clone(), self.token, self.running.clone());
        async move {
            let mut record = driver.record.clone();
            let ended = match tokio::spawn(driver.run()).await {
                Ok(Status::Paused) => return,
                Ok(status) => status,
                Err(panic) => {
                    Status::Failed(Error::internal(format!("the driver ended abnormally: {panic}")))
                }
            };
            record.status = ended;
            if let Some(running) = running.lock().get_mut(&record.name) {
                running.record.status = record.status.clone();
            }
            let key = format!("{PREFIX}{}", record.name);
            let body = match serde_json::to_vec(&record) {
                Ok(body) => Bytes::from(body),
                Err(error) => return tracing::error!(%error, "pipeline record does not serialise"),
            };
            if let Err(error) = journal.put(token, &key, body, Expect::Anything).await {
                tracing::error!(pipeline = %record.name, %error, "its end could not be written down");
            }
        }
    }
}
