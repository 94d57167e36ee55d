//! Workers in this process, and sessions to use them.

use crate::toys;
use arrow::array::RecordBatch;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemill_core::config::Config;
use tidemill_core::{ConnectorRegistry, Error, ExecutorId, JobId};
use tidemill_engine::codec::Codec;
use tidemill_engine::pipelined::{Member, Members, Pipelined, WorkerServer};
use tidemill_engine::{Engine, JobKind, JobSpec, Services, from_datafusion, session};

/// A list that tests change by hand.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Vec<Member>>);

impl Members for Known {
    fn members(&self) -> Vec<Member> {
        self.0.lock().unwrap().clone()
    }
}

impl Known {
    pub(crate) fn add(&self, name: &str, port: u16) {
        let url = format!("http://127.0.0.1:{port}").parse().unwrap();
        let build = session::build().to_owned();
        self.0.lock().unwrap().push(Member { id: ExecutorId::new(name), url, vcores: 1, build });
    }

    pub(crate) fn remove(&self, name: &str) {
        self.0.lock().unwrap().retain(|member| member.id.as_str() != name);
    }
}

pub(crate) struct Cluster {
    pub(crate) members: Arc<Known>,
    pub(crate) engine: Pipelined,
    pub(crate) session: SessionContext,
    workers: Vec<WorkerServer>,
}

impl Cluster {
    /// With workers `w0`, `w1`, …
    pub(crate) fn of(workers: usize) -> Self {
        let services = Services::new(Config::default(), ConnectorRegistry::default());
        let runtime = session::runtime_env(&services.config).unwrap();
        let codec = Codec::default().with_operators(toys::OPERATORS);
        let members = Arc::new(Known::default());
        let start = |index: usize| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let worker =
                WorkerServer::start(listener, services.clone(), runtime.clone(), codec.clone(), 2).unwrap();
            members.add(&format!("w{index}"), worker.address().port());
            worker
        };
        let workers = (0..workers).map(start).collect();
        let engine = Pipelined::new(members.clone()).with_codec(codec);
        let session = SessionContext::new_with_state(session::session_state(&services, runtime).build());
        Self { members, engine, session, workers }
    }

    pub(crate) async fn plan(&self, sql: &str) -> Arc<dyn ExecutionPlan> {
        self.session.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
    }

    pub(crate) async fn run(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>, Error> {
        run(&self.engine, plan, &self.session, JobKind::Query).await
    }

    /// The worker dies without a word, and later the scheduler notices.
    pub(crate) fn kill_last(&mut self) {
        let worker = self.workers.pop().unwrap();
        worker.stop(Duration::ZERO);
        self.members.remove(&format!("w{}", self.workers.len()));
    }
}

pub(crate) async fn run(
    engine: &dyn Engine,
    plan: Arc<dyn ExecutionPlan>,
    session: &SessionContext,
    kind: JobKind,
) -> Result<Vec<RecordBatch>, Error> {
    let job = JobSpec { id: JobId::new("test"), kind, title: "test".to_owned() };
    let execution = engine.execute(job, plan, session.task_ctx()).await?;
    execution.stream.try_collect().await.map_err(from_datafusion)
}

pub(crate) fn rows(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}
