use super::*;
use crate::admission::{Background, Gate, Limits, Priority};
use crate::engines::Engines;
use crate::frontend::api::Answer;
use crate::frontend::jobs::{JobStatus, JobView, Jobs};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use std::time::Instant;
use tidemill_core::ConnectorRegistry;
use tidemill_engine::stages::StageReports;
use tidemill_engine::{Engine, InProcess, JobSpec};

const ALL_MEMORY: usize = 256 << 20;
/// It multiplies two million rows with each other, and holds one side of them.
const EXPLODES: &str = "SELECT sum((x * y) % 7) FROM generate_series(1, 2000000) AS a(x) \
                        CROSS JOIN generate_series(1, 2000000) AS b(y)";
/// More rows than fit between a job and its client.
const ENDLESS: &str = "SELECT value FROM generate_series(1, 1000000000000)";

struct House {
    runner: Runner,
    context: SessionContext,
    pool: Arc<dyn MemoryPool>,
}

fn house(engines: Engines) -> House {
    let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(ALL_MEMORY));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool.clone()).build_arc().unwrap();
    let config = SessionConfig::new().with_target_partitions(2);
    let context = SessionContext::new_with_config_rt(config, runtime);
    let runner = Runner {
        engines: Arc::new(engines),
        gate: Gate::new(Limits { light: 4, queue: 10 }, || (1, true)),
        background: Arc::new(Background::new(2).unwrap()),
        jobs: Jobs::default(),
        connectors: ConnectorRegistry::default(),
        heavy_from: 64 << 20,
        local_below: 0,
        memory_limit: 0,
    };
    House { runner, context, pool }
}

fn local() -> House {
    house(Engines::local(Arc::new(InProcess::new(2))))
}

impl House {
    fn session(&self, user: &str) -> Session {
        Session::new(user, self.context.state(), None)
    }

    async fn query(&self, session: &Session, sql: &str) -> Answer {
        let plan = self.context.state().create_logical_plan(sql).await.unwrap();
        self.runner.query(session, sql, plan).await.unwrap()
    }

    fn job(&self, id: &JobId) -> JobView {
        self.runner.jobs.list().into_iter().find(|job| job.id == *id).unwrap()
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) -> Duration {
        let since = Instant::now();
        while !what(self) {
            assert!(since.elapsed() < Duration::from_secs(30), "it does not come to pass");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        since.elapsed()
    }
}

fn failure(item: Option<DfResult<RecordBatch>>) -> Error {
    from_datafusion(item.expect("an item").expect_err("an error"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_cross_join_frees_everything_within_a_second() {
    let house = local();
    let mut answer = house.query(&house.session("ann"), EXPLODES).await;
    let id = answer.job.clone();
    let reading = tokio::spawn(async move { answer.stream.next().await });
    house.until(|house| house.pool.reserved() > 1 << 20).await;
    assert_eq!((house.job(&id).status, house.job(&id).lane), (JobStatus::Running, Lane::Heavy));

    assert!(house.runner.jobs.cancel(&id, None));
    let freed = house
        .until(|house| {
            let ended = house.job(&id).status == JobStatus::Cancelled;
            ended && house.pool.reserved() == 0 && house.runner.gate.counts(Lane::Heavy) == (0, 0)
        })
        .await;
    assert!(freed < Duration::from_secs(1), "{freed:?}");
    assert_eq!(failure(reading.await.unwrap()).code, Code::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_frees_everything() {
    let house = local();
    let mut answer = house.query(&house.session("ann"), EXPLODES).await;
    let id = answer.job.clone();
    let reading = tokio::spawn(async move { answer.stream.next().await });
    house.until(|house| house.pool.reserved() > 1 << 20).await;
    reading.abort();
    let freed = house.until(|house| house.pool.reserved() == 0).await;
    assert!(freed < Duration::from_secs(1), "{freed:?}");
    assert_eq!(house.job(&id).status, JobStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_beyond_its_memory_fails_alone_with_advice() {
    let house = local();
    let mut session = house.session("ann");
    session.limits.memory = Some(4 << 20);
    let mut greedy = house.query(&session, EXPLODES).await;
    let error = failure(greedy.stream.next().await);
    assert_eq!(error.code, Code::ResourcesExhausted);
    let hint = error.hint.unwrap();
    for word in ["4.0 MB", "spilled", "SET memory_limit", "staged", "filter"] {
        assert!(hint.contains(word), "{hint}");
    }
    assert_eq!(house.job(&greedy.job).status, JobStatus::Failed);
    let mut modest = house.query(&session, "SELECT 1").await;
    assert_eq!(modest.stream.next().await.unwrap().unwrap().num_rows(), 1);
    drop(modest);
    house.until(|house| house.pool.reserved() == 0).await;
}

/// A hash join holds one side whole; sorts of both spill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_beyond_its_memory_sorts_and_spills() {
    let house = local();
    let mut session = house.session("ann");
    session.limits.memory = Some(40 << 20);
    // The sum keeps both columns of both sides, of 16 MB each.
    let sql = "SELECT count(*), sum(a.y - b.y) FROM \
               (SELECT value AS x, value + 1 AS y FROM generate_series(1, 3000000)) a JOIN \
               (SELECT value AS x, value AS y FROM generate_series(1, 3000000)) b ON a.x = b.x";
    let mut answer = house.query(&session, sql).await;
    let batch = answer.stream.next().await.unwrap().unwrap();
    assert!(answer.stream.next().await.is_none());
    let value = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(0);
    assert_eq!((value(0), value(1)), (3_000_000, 3_000_000));
    let job = house.job(&answer.job);
    assert_eq!((job.status, job.engine), (JobStatus::Done, EngineKind::InProcess));
    assert!(job.reason.starts_with("in_process ran out of memory"), "{}", job.reason);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_jobs_wait_light_ones_do_not_and_waiting_ones_can_be_cancelled() {
    let house = local();
    let session = house.session("ann");
    let mut running = house.query(&session, EXPLODES).await;
    let first = running.job.clone();
    let reading = tokio::spawn(async move { running.stream.next().await });
    house.until(|house| house.job(&first).status == JobStatus::Running).await;

    let mut waiting = house.query(&session, EXPLODES).await;
    let second = waiting.job.clone();
    let other = tokio::spawn(async move { waiting.stream.next().await });
    house.until(|house| house.runner.gate.counts(Lane::Heavy) == (1, 1)).await;
    assert_eq!(house.job(&second).status, JobStatus::Queued);

    let mut point = house.query(&session, "SELECT 1").await;
    assert_eq!(point.stream.next().await.unwrap().unwrap().num_rows(), 1);
    assert!(point.stream.next().await.is_none());
    assert_eq!(house.job(&point.job).status, JobStatus::Done);

    assert!(house.runner.jobs.cancel(&second, None));
    assert_eq!(failure(other.await.unwrap()).code, Code::Cancelled);
    assert_eq!(house.runner.gate.counts(Lane::Heavy), (0, 1));
    assert!(house.job(&second).started_at_ms.is_none());
    reading.abort();
    house.until(|house| house.runner.gate.counts(Lane::Heavy) == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_gives_its_slot_away() {
    let house = local();
    let mut idle = house.query(&house.session("ann"), ENDLESS).await;
    idle.stream.next().await.unwrap().unwrap();
    assert_eq!(house.runner.gate.counts(Lane::Heavy), (0, 1));
    let mut other = house.query(&house.session("bob"), ENDLESS).await;
    other.stream.next().await.unwrap().unwrap();
    // It reads on as soon as there is a slot again.
    drop(other);
    for _ in 0..10 {
        idle.stream.next().await.unwrap().unwrap();
    }
    assert_eq!(house.job(&idle.job).status, JobStatus::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_ends_at_its_timeout() {
    let house = local();
    let mut session = house.session("ann");
    session.limits.timeout = Some(Duration::from_millis(20));
    session.limits.priority = Priority::Low;
    let mut answer = house.query(&session, EXPLODES).await;
    let error = failure(answer.stream.next().await);
    assert_eq!(error.code, Code::Cancelled);
    assert!(error.hint.unwrap().contains("statement_timeout"));
}

/// Fails as an engine does that has too little memory.
#[derive(Debug)]
struct Small(Code);

/// The staged engine, as far as its name goes.
#[derive(Debug)]
struct Large(InProcess);

#[async_trait]
impl Engine for Small {
    fn kind(&self) -> EngineKind {
        EngineKind::Pipelined
    }

    fn slots(&self) -> usize {
        1
    }

    fn planning(&self, session: &SessionConfig, _: Option<u64>) -> SessionConfig {
        session.clone()
    }

    async fn prepare(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: Arc<TaskContext>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan)
    }

    async fn execute(
        &self,
        _: JobSpec,
        plan: Arc<dyn ExecutionPlan>,
        _: Arc<TaskContext>,
    ) -> Result<Execution> {
        let error = to_datafusion(Error::new(self.0, "the sort needs more"));
        let stream = futures::stream::once(async move { Err(error) });
        let stream = Box::pin(RecordBatchStreamAdapter::new(plan.schema(), stream));
        let stages: StageReports = Arc::new(|| Box::pin(async { Ok(Vec::new()) }));
        Ok(Execution { stream, progress: Arc::new(Progress::default), plan, stages })
    }
}

#[async_trait]
impl Engine for Large {
    fn kind(&self) -> EngineKind {
        EngineKind::Staged
    }

    fn slots(&self) -> usize {
        1
    }

    fn planning(&self, session: &SessionConfig, bytes: Option<u64>) -> SessionConfig {
        self.0.planning(session, bytes)
    }

    async fn prepare(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.prepare(plan, context).await
    }

    async fn execute(
        &self,
        job: JobSpec,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Execution> {
        self.0.execute(job, plan, context).await
    }
}

/// A house on a cluster, with a stored table, because what reads nothing stays in the process.
async fn cluster(code: Code, folder: &tempfile::TempDir) -> House {
    let staged: Arc<dyn Engine> = Arc::new(Large(InProcess::new(2)));
    let local = Arc::new(InProcess::new(2));
    let house = house(Engines::cluster(local, Arc::new(Small(code)), Some(staged)));
    let path = folder.path().join("t.parquet").display().to_string();
    let rows = house.context.sql("SELECT 7 AS n").await.unwrap();
    rows.write_parquet(&path, DataFrameWriteOptions::new(), None).await.unwrap();
    house.context.register_parquet("t", &path, ParquetReadOptions::default()).await.unwrap();
    house
}

#[tokio::test]
async fn what_fails_for_memory_or_a_lost_worker_runs_again_staged() {
    for (code, words) in
        [(Code::ResourcesExhausted, "pipelined ran out of memory"), (Code::WorkerLost, "lost a worker")]
    {
        let folder = tempfile::tempdir().unwrap();
        let house = cluster(code, &folder).await;
        let mut answer = house.query(&house.session("ann"), "SELECT n FROM t").await;
        assert_eq!(answer.engine, Some(EngineKind::Pipelined));
        assert_eq!(answer.stream.next().await.unwrap().unwrap().num_rows(), 1);
        assert!(answer.stream.next().await.is_none());
        let job = house.job(&answer.job);
        assert_eq!((job.status, job.engine), (JobStatus::Done, EngineKind::Staged));
        assert!(job.reason.contains(words) && job.reason.contains("the sort needs more"), "{}", job.reason);
    }
}

#[tokio::test]
async fn what_fails_otherwise_or_was_asked_for_is_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let house = cluster(Code::BadData, &folder).await;
    let mut answer = house.query(&house.session("ann"), "SELECT n FROM t").await;
    assert_eq!(failure(answer.stream.next().await).code, Code::BadData);

    let folder = tempfile::tempdir().unwrap();
    let house = cluster(Code::ResourcesExhausted, &folder).await;
    let session = Session { engine: EngineChoice::Only(EngineKind::Pipelined), ..house.session("ann") };
    let mut answer = house.query(&session, "SELECT n FROM t").await;
    assert_eq!(failure(answer.stream.next().await).code, Code::ResourcesExhausted);
    assert_eq!(house.job(&answer.job).engine, EngineKind::Pipelined);
}
