//! A frontend over plain DataFusion sessions: enough to test the gateway without the rest of the scheduler.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use dashmap::DashMap;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::datasource::MemTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tidemill_core::{Code, Error, JobId, Result};
use tidemill_engine::{EngineKind, Progress, from_datafusion, to_datafusion};
use tidemill_scheduler::frontend::api::{
    Answer, AnswerKind, Description, Frontend, Ingest, IngestInto, SchemaInfo, SessionId, TableFilter,
    TableInfo,
};
use tidemill_scheduler::frontend::params::{bind, parameters};
use tidemill_scheduler::frontend::substrait::{Request, read};
use tokio_util::sync::CancellationToken;

/// How a job is ended, how many rows it gave, and whose it is.
type Entry = (CancellationToken, Arc<AtomicU64>, String);

#[derive(Default)]
pub(crate) struct PlainFrontend {
    sessions: DashMap<String, SessionContext>,
    jobs: Arc<DashMap<JobId, Entry>>,
    next: AtomicUsize,
}

impl PlainFrontend {
    pub(crate) fn open_sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn running_jobs(&self) -> usize {
        self.jobs.len()
    }

    fn context(&self, session: &SessionId) -> Result<SessionContext> {
        let context = self.sessions.get(session.as_str()).map(|context| context.clone());
        context.ok_or_else(|| Error::new(Code::UnknownObject, format!("no session `{session}`")))
    }

    async fn plan(&self, session: &SessionId, sql: &str) -> Result<LogicalPlan> {
        self.context(session)?.state().create_logical_plan(sql).await.map_err(from_datafusion)
    }

    async fn start(&self, session: &SessionId, plan: LogicalPlan) -> Result<Answer> {
        let kind = kind(&plan);
        let frame = self.context(session)?.execute_logical_plan(plan).await.map_err(from_datafusion)?;
        let stream = frame.execute_stream().await.map_err(from_datafusion)?;
        let job = JobId::new(format!("job-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        // Sessions are named by their user and a number.
        let user = session.as_str().rsplit_once('-').map_or("", |(user, _)| user);
        Ok(Answer {
            kind,
            schema: stream.schema(),
            stream: self.track(job.clone(), user, stream),
            job,
            progress: Arc::new(Progress::default),
            engine: Some(EngineKind::InProcess),
            reason: "there is no other".to_owned(),
        })
    }

    /// Counts rows, ends on cancel, and forgets the job at the end or when it is dropped.
    fn track(&self, job: JobId, user: &str, inner: SendableRecordBatchStream) -> SendableRecordBatchStream {
        struct Job(JobId, Arc<DashMap<JobId, Entry>>);
        impl Drop for Job {
            fn drop(&mut self) {
                self.1.remove(&self.0);
            }
        }
        let (token, rows) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        self.jobs.insert(job.clone(), (token.clone(), Arc::clone(&rows), user.to_owned()));
        let guard = Job(job, Arc::clone(&self.jobs));
        let schema = inner.schema();
        let tracked = stream::unfold(Some((inner, token, rows, guard)), |state| async move {
            let (mut inner, token, rows, guard) = state?;
            tokio::select! {
                biased;
                () = token.cancelled() => {
                    let error = Error::new(Code::Cancelled, "the query was cancelled");
                    Some((Err(to_datafusion(error)), None))
                }
                batch = inner.next() => {
                    let batch = batch?;
                    if let Ok(batch) = &batch {
                        rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                    }
                    Some((batch, Some((inner, token, rows, guard))))
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, tracked))
    }
}

fn kind(plan: &LogicalPlan) -> AnswerKind {
    match plan {
        LogicalPlan::Dml(_) | LogicalPlan::Copy(_) => AnswerKind::Count,
        LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => AnswerKind::Nothing,
        _ => AnswerKind::Rows,
    }
}

#[async_trait]
impl Frontend for PlainFrontend {
    async fn open_session(&self, user: &str) -> Result<SessionId> {
        let config = SessionConfig::new().with_information_schema(true).with_target_partitions(2);
        let id = SessionId::new(format!("{user}-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        self.sessions.insert(id.as_str().to_owned(), SessionContext::new_with_config(config));
        Ok(id)
    }

    async fn close_session(&self, session: &SessionId) {
        self.sessions.remove(session.as_str());
    }

    async fn execute(&self, session: &SessionId, sql: &str, params: Option<RecordBatch>) -> Result<Answer> {
        let mut plan = self.plan(session, sql).await?;
        if let Some(params) = params {
            plan = bind(plan, &params)?;
        }
        self.start(session, plan).await
    }

    async fn ingest(&self, session: &SessionId, ingest: Ingest) -> Result<Answer> {
        let rows: Vec<RecordBatch> = ingest.rows.try_collect().await.map_err(from_datafusion)?;
        let context = self.context(session)?;
        let there = context.table_exist(ingest.table.as_str()).map_err(from_datafusion)?;
        if there && ingest.into == IngestInto::NewTable {
            return Err(Error::new(Code::AlreadyExists, format!("there is a table `{}`", ingest.table)));
        }
        let frame = context.read_batches(rows).map_err(from_datafusion)?;
        if !there {
            let empty = MemTable::try_new(Arc::clone(frame.schema().inner()), vec![vec![]]);
            let empty = Arc::new(empty.map_err(from_datafusion)?);
            context.register_table(ingest.table.as_str(), empty).map_err(from_datafusion)?;
        }
        let counts = frame.write_table(&ingest.table, DataFrameWriteOptions::new()).await;
        let counts = counts.map_err(from_datafusion)?;
        let schema = counts[0].schema();
        let counts = stream::iter(counts.into_iter().map(Ok));
        Ok(Answer {
            kind: AnswerKind::Count,
            schema: Arc::clone(&schema),
            stream: Box::pin(RecordBatchStreamAdapter::new(schema, counts)),
            job: JobId::new("ingest"),
            progress: Arc::new(Progress::default),
            engine: Some(EngineKind::InProcess),
            reason: String::new(),
        })
    }

    async fn variable(&self, _: &SessionId, name: &str) -> Result<String> {
        match name {
            "result_compression" => Ok("none".to_owned()),
            _ => Err(Error::new(Code::BadOption, format!("no variable `{name}`"))),
        }
    }

    async fn describe(&self, session: &SessionId, sql: &str) -> Result<Description> {
        let plan = self.plan(session, sql).await?;
        let schema = Arc::clone(plan.schema().inner());
        Ok(Description { kind: kind(&plan), schema, parameters: parameters(&plan)? })
    }

    async fn execute_substrait(
        &self,
        session: &SessionId,
        plan: &[u8],
        params: Option<RecordBatch>,
    ) -> Result<Answer> {
        let Request { mut plan, into, .. } = read(&self.context(session)?.state(), plan).await?;
        if let Some(params) = params {
            plan = bind(plan, &params)?;
        }
        if let Some(table) = into {
            let target = self.context(session)?.table_provider(table.join(".")).await;
            let target = provider_as_source(target.map_err(from_datafusion)?);
            let insert = LogicalPlanBuilder::insert_into(plan, table.join("."), target, InsertOp::Append);
            plan = insert.and_then(|insert| insert.build()).map_err(from_datafusion)?;
        }
        self.start(session, plan).await
    }

    async fn describe_substrait(&self, session: &SessionId, plan: &[u8]) -> Result<Description> {
        let request = read(&self.context(session)?.state(), plan).await?;
        let kind = if request.into.is_some() { AnswerKind::Count } else { AnswerKind::Rows };
        let schema = Arc::clone(request.plan.schema().inner());
        Ok(Description { kind, schema, parameters: parameters(&request.plan)? })
    }

    async fn cancel(&self, job: &JobId, user: Option<&str>) -> Result<bool> {
        let Some(entry) = self.jobs.get(job) else { return Ok(false) };
        let theirs = user.is_none_or(|user| entry.2 == user);
        if theirs {
            entry.0.cancel();
        }
        Ok(theirs)
    }

    async fn progress(&self, job: &JobId) -> Option<Progress> {
        let rows = self.jobs.get(job)?.1.load(Ordering::Relaxed);
        Some(Progress { rows, ..Progress::default() })
    }

    async fn schemas(&self, session: &SessionId) -> Result<Vec<SchemaInfo>> {
        let context = self.context(session)?;
        let names = context.catalog_names().into_iter().flat_map(|catalog| {
            let schemas = context.catalog(&catalog).map(|c| c.schema_names()).unwrap_or_default();
            schemas.into_iter().map(move |schema| SchemaInfo { catalog: catalog.clone(), schema })
        });
        Ok(names.collect())
    }

    async fn tables(&self, session: &SessionId, filter: &TableFilter) -> Result<Vec<TableInfo>> {
        let context = self.context(session)?;
        let mut tables = Vec::new();
        for SchemaInfo { catalog, schema } in self.schemas(session).await? {
            let provider = context.catalog(&catalog).and_then(|provider| provider.schema(&schema));
            for name in provider.iter().flat_map(|provider| provider.table_names()) {
                let columns = match (&provider, filter.with_columns) {
                    (Some(provider), true) => {
                        provider.table(&name).await.map_err(from_datafusion)?.map(|table| table.schema())
                    }
                    _ => None,
                };
                tables.push(TableInfo {
                    catalog: catalog.clone(),
                    schema: schema.clone(),
                    name,
                    kind: "TABLE",
                    columns,
                });
            }
        }
        Ok(tables)
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }
}
