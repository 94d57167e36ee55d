//! A session of ours whose queries run on one of our engines. Everything else (CREATE TABLE, SET, INSERT, COPY) is
//! DataFusion's.

use crate::cells;
use crate::lineage::Touched;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result as DfResult, TableReference};
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemill_core::config::Config;
use tidemill_core::{ConnectorRegistry, ExecutorId, JobId};
use tidemill_engine::codec::Codec;
use tidemill_engine::pipelined::{Member, Members, Pipelined, WorkerServer};
use tidemill_engine::{Engine, EngineKind, InProcess, JobKind, JobSpec, Services, session, to_datafusion};

/// As many as DataFusion's own runner plans for.
const PARTITIONS: usize = 4;
const WORKERS: usize = 2;

#[derive(Debug)]
struct Fixed(Vec<Member>);

impl Members for Fixed {
    fn members(&self) -> Vec<Member> {
        self.0.clone()
    }
}

/// Both engines, with workers in this process.
pub(crate) struct Cluster {
    services: Arc<Services>,
    pipelined: Pipelined,
    tables: tempfile::TempDir,
    _workers: Vec<WorkerServer>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let services = Services::new(Config::default(), ConnectorRegistry::default());
        let runtime = session::runtime_env(&services.config).unwrap();
        let start = |_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            WorkerServer::start(listener, services.clone(), runtime.clone(), Codec::default(), 2).unwrap()
        };
        let workers: Vec<WorkerServer> = (0..WORKERS).map(start).collect();
        let member = |(index, worker): (usize, &WorkerServer)| Member {
            id: ExecutorId::new(format!("w{index}")),
            url: format!("http://127.0.0.1:{}", worker.address().port()).parse().unwrap(),
            vcores: 1,
            build: session::build().to_owned(),
        };
        let members = workers.iter().enumerate().map(member).collect();
        let pipelined = Pipelined::new(Arc::new(Fixed(members)));
        Self { services, pipelined, tables: tempfile::tempdir().unwrap(), _workers: workers }
    }

    pub(crate) fn engines(&self) -> [Arc<dyn Engine>; 2] {
        [Arc::new(InProcess::new(PARTITIONS)), Arc::new(self.pipelined.clone())]
    }
}

/// An answer as the files write it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// A letter a column; none of a statement that has no answer.
    pub(crate) types: String,
    pub(crate) rows: Vec<Vec<String>>,
}

pub(crate) struct Database {
    cluster: Arc<Cluster>,
    engine: Arc<dyn Engine>,
    context: SessionContext,
    /// The test file in lower case.
    text: String,
    /// Whether it is one of Spark's functions.
    spark: bool,
    files: AtomicUsize,
}

impl Database {
    pub(crate) fn new(cluster: Arc<Cluster>, engine: Arc<dyn Engine>, file: &Path) -> Self {
        // A memory pool of its own: a file may set the session's limits.
        let runtime = session::runtime_env(&cluster.services.config).unwrap();
        let config = session::session_config(&cluster.services)
            .with_target_partitions(PARTITIONS)
            .with_information_schema(false);
        let state = session::session_state(&cluster.services, runtime).with_config(config).build();
        let context = SessionContext::new_with_state(state);
        let text = std::fs::read_to_string(file).unwrap_or_default().to_lowercase();
        let spark = file.starts_with("test_files/spark");
        Self { cluster, engine, context, text, spark, files: AtomicUsize::default() }
    }

    /// What the statement touches; `None` where it does not parse.
    pub(crate) fn touched(&self, sql: &str) -> Option<Touched> {
        let state = self.context.state_ref();
        let state = state.read();
        let parser = &state.config().options().sql_parser;
        let statement = state.sql_to_statement(sql, &parser.dialect).ok()?;
        let tables = state.resolve_table_references(&statement).ok()?;
        Some(Touched::by(&statement, tables, parser.enable_ident_normalization))
    }

    /// The answer, or the error in the words of DataFusion's own runner, which expected errors quote.
    pub(crate) async fn run(&self, sql: &str) -> Result<Answer, String> {
        match self.answer(sql).await {
            Ok((schema, batches)) => {
                Ok(Answer { types: cells::types(&schema), rows: cells::rows(&batches, self.spark) })
            }
            Err(error) => Err(format!("DataFusion error: {}", error.strip_backtrace())),
        }
    }

    async fn answer(&self, sql: &str) -> DfResult<(SchemaRef, Vec<RecordBatch>)> {
        let plan = self.context.state().create_logical_plan(sql).await?;
        let made = match &plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => Some(create.name.clone()),
            _ => None,
        };
        let by_datafusion = matches!(
            plan,
            LogicalPlan::Ddl(_)
                | LogicalPlan::Dml(_)
                | LogicalPlan::Copy(_)
                | LogicalPlan::Statement(_)
                | LogicalPlan::DescribeTable(_)
        );
        if by_datafusion {
            let answer = self.context.execute_logical_plan(plan).await?;
            let schema = answer.schema().inner().clone();
            let batches = answer.collect().await?;
            if let Some(name) = made
                && self.engine.kind() == EngineKind::Pipelined
            {
                self.to_files(&name).await?;
            }
            return Ok((schema, batches));
        }
        let mut state = self.context.state();
        *state.config_mut() = self.engine.planning(state.config(), None);
        let physical = state.create_physical_plan(&plan).await?;
        let job = JobSpec { id: JobId::new("slt"), kind: JobKind::Query, title: sql.to_owned() };
        let execution = self.engine.execute(job, physical, state.task_ctx()).await.map_err(to_datafusion)?;
        let schema = execution.stream.schema();
        Ok((schema, execution.stream.try_collect().await?))
    }

    /// A table in memory is read by the coordinator alone. As a file it is cut into tasks, like a table of the lake;
    /// tables that the test changes later stay as they are.
    async fn to_files(&self, name: &TableReference) -> DfResult<()> {
        let changed = ["insert into", "update", "delete from", "alter table", "truncate table"];
        let bare = name.table().to_lowercase();
        let is_changed = |verb: &&str| {
            self.text.contains(&format!("{verb} {bare}")) || self.text.contains(&format!("{verb} \"{bare}\""))
        };
        if changed.iter().any(is_changed) {
            return Ok(());
        }
        let provider = self.context.table_provider(name.clone()).await?;
        if provider.constraints().is_some_and(|constraints| constraints.iter().next().is_some()) {
            return Ok(());
        }
        let table = self.context.read_table(provider.clone())?;
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let folder = self.cluster.tables.path().join(format!("{}-{number}", self.engine.kind().as_str()));
        let path = folder.to_str().unwrap_or_default().to_owned() + "/";
        let _ = std::fs::remove_dir_all(&folder);
        if table.clone().write_parquet(&path, DataFrameWriteOptions::new(), None).await.is_err() {
            // A type that Parquet has no place for.
            return Ok(());
        }
        let schema = provider.schema();
        let options = ParquetReadOptions::default().schema(&schema);
        let Ok(files) = self.context.read_parquet(&path, options.clone()).await else { return Ok(()) };
        if files.schema().as_arrow() != schema.as_ref() || files.clone().collect().await.is_err() {
            return Ok(());
        }
        self.context.deregister_table(name.clone())?;
        // A table, so that DROP TABLE finds it.
        self.context.register_parquet(name.clone(), &path, options).await
    }
}
