//! Where care that nobody asked for runs, and what it may take.

use super::{Optimizer, TargetSize, Upkeep};
use crate::admission::{Background, Gate, Lane, Limits, Priority, Request};
use crate::engines::Engines;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::execution::TaskContext;
use datafusion::prelude::SessionContext;
use futures::FutureExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_core::config::Maintenance as Config;
use tidemill_core::{Error, Result};
use tidemill_engine::maintenance::{Facts, Vacuum};
use tidemill_engine::{
    InProcess, LakeFormat, Maintenance, TableNotes, TableOptions, TableVersion, memory, priority,
};
use url::Url;

/// A lake without tables, which keeps how nice those are who ask what was written.
#[derive(Debug, Default)]
struct Empty(parking_lot::Mutex<Vec<i32>>);

fn none<T>() -> Result<T> {
    Err(Error::internal("there are no tables"))
}

#[async_trait]
impl LakeFormat for Empty {
    async fn open(&self, _: &Url) -> Result<Arc<dyn TableProvider>> {
        none()
    }

    async fn open_at(&self, _: &Url, _: TableVersion) -> Result<Arc<dyn TableProvider>> {
        none()
    }

    async fn changes(
        &self,
        _: &Url,
        _: TableVersion,
        _: Option<TableVersion>,
    ) -> Result<Arc<dyn TableProvider>> {
        none()
    }

    async fn exists(&self, _: &Url) -> Result<bool> {
        Ok(false)
    }

    async fn create(&self, _: &Url, _: SchemaRef, _: &TableOptions) -> Result<()> {
        none()
    }

    async fn notes(&self, _: &Url) -> Result<TableNotes> {
        none()
    }

    async fn comment(&self, _: &Url, _: Option<&str>, _: &str) -> Result<()> {
        none()
    }

    async fn remove(&self, _: &Url) -> Result<()> {
        none()
    }

    fn maintenance(&self) -> Result<&dyn Maintenance> {
        Ok(self)
    }
}

#[async_trait]
impl Maintenance for Empty {
    async fn history(&self, _: &Url, _: Option<usize>) -> Result<RecordBatch> {
        none()
    }

    async fn detail(&self, _: &Url) -> Result<RecordBatch> {
        none()
    }

    async fn vacuum(&self, _: &Url, _: &Vacuum) -> Result<Vec<String>> {
        none()
    }

    async fn restore(&self, _: &Url, _: TableVersion) -> Result<RecordBatch> {
        none()
    }

    async fn convert(&self, _: &Url, _: &SchemaRef) -> Result<RecordBatch> {
        none()
    }

    fn written(&self) -> Vec<Url> {
        self.0.lock().push(priority::niceness());
        Vec::new()
    }

    async fn facts(&self, _: &Url) -> Result<Facts> {
        none()
    }

    async fn checkpoint(&self, _: &Url) -> Result<()> {
        none()
    }

    async fn clean_log(&self, _: &Url) -> Result<usize> {
        none()
    }
}

fn optimizer(lake: Arc<Empty>) -> Optimizer {
    let state = SessionContext::new().state();
    Optimizer {
        lake,
        engines: Arc::new(Engines::local(Arc::new(InProcess::new(1)))),
        context: state.task_ctx(),
        state,
        target: TargetSize(10),
        memory: 100,
        turns: None,
    }
}

#[test]
fn as_many_files_are_written_at_once_as_fit() {
    let mut optimizer = optimizer(Arc::default());
    assert_eq!(optimizer.bins_at_once(TargetSize(10)), 5);
    assert_eq!(optimizer.bins_at_once(TargetSize(1000)), 1);
    let context = TaskContext::from(&optimizer.state);
    optimizer.context = Arc::new(memory::limited(context, 60));
    assert_eq!(optimizer.bins_at_once(TargetSize(10)), 3, "the job has less");
}

#[tokio::test]
async fn what_nobody_asked_for_waits_for_the_jobs_of_users() {
    let gate = Gate::new(Limits { light: 1, queue: 0 }, || (1, true));
    let asked = optimizer(Arc::default());
    let unasked = Optimizer { turns: Some(gate.clone()), ..asked.clone() };
    let (user, lane, priority) = ("ann".to_owned(), Lane::Heavy, Priority::Low);
    let ann = gate.enter(&Request { user, lane, priority, again: true }).await.unwrap();
    assert!(asked.turn().await.unwrap().is_none(), "a statement has had its turn");
    let mut turn = Box::pin(unasked.turn());
    assert!((&mut turn).now_or_never().is_none());
    drop(ann);
    let permit = turn.await.unwrap();
    assert_eq!(gate.counts(Lane::Heavy), (0, 1));
    drop(permit);
    assert_eq!(gate.counts(Lane::Heavy), (0, 0));
}

#[tokio::test]
async fn what_nobody_asked_for_runs_on_nicer_threads() {
    let (lake, threads) = (Arc::new(Empty::default()), Background::new(1).unwrap());
    let config = Config { interval: Duration::from_millis(1), ..Config::default() };
    let upkeep = Upkeep::start(optimizer(lake.clone()), config, &threads);
    let began = Instant::now();
    while lake.0.lock().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "nobody asks what was written");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    upkeep.stop().await;
    assert!(lake.0.lock().iter().all(|there| *there > priority::niceness()));
}
