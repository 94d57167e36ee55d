//! Statements that care for Delta tables: what they answer with, and how they run.

use super::SqlFrontend;
use super::api::{Answer, AnswerKind};
use super::cost::Cost;
use super::define::Definer;
use super::drive::{Launch, Try};
use super::query::Planned;
use super::session::Session;
use crate::admission::Lane;
use crate::engines::EngineChoice;
use crate::maintenance::{Cluster, Compact, Optimizer, Report};
use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result, store};
use tidemill_engine::maintenance::{self, Vacuum};
use tidemill_engine::stages::StageReports;
use tidemill_engine::{Execution, LakeSnapshot, Progress, from_datafusion, to_datafusion};
use tidemill_sql::statement::{Maintain, Place, TableFormat};
use url::Url;

/// Why no engine was chosen for the whole statement: it chooses for its parts.
const REASON: &str = "care of a table";

pub(super) fn schema(statement: &Maintain) -> SchemaRef {
    match statement {
        Maintain::History { .. } => maintenance::history_schema(),
        Maintain::Detail { .. } => maintenance::detail_schema(),
        Maintain::Vacuum { .. } => maintenance::vacuum_schema(),
        Maintain::Restore { .. } => maintenance::restore_schema(),
        Maintain::Convert { .. } => maintenance::convert_schema(),
        Maintain::Optimize { .. } => maintenance::optimize_schema(),
    }
}

/// Runs the statement while its answer is read, as a job like any other: it takes its turn, has the memory of one
/// job, and can be cancelled.
pub(super) fn run(
    frontend: &SqlFrontend,
    session: &Session,
    sql: &str,
    statement: Maintain,
) -> Result<Answer> {
    let schema = schema(&statement);
    let caretaker = Arc::new(Caretaker {
        definer: frontend.definer.clone(),
        optimizer: Optimizer { state: SessionState::clone(&session.state), ..frontend.optimizer.clone() },
        engine: session.engine,
        check_retention: session.retention_check,
        orphan_retention: frontend.orphan_retention,
    });
    // Only OPTIMIZE reads and writes rows; how many is not known before its snapshot is.
    let lane = match &statement {
        Maintain::Optimize { .. } => Lane::Heavy,
        _ => Lane::Light,
    };
    // The parts of the statement are planned while it runs.
    let logical = LogicalPlanBuilder::empty(false).build().map_err(from_datafusion)?;
    let engine = frontend.runner.engines.in_process();
    let plan = Arc::new(EmptyExec::new(schema.clone()));
    let planned = Planned { plan, engine, reason: REASON.to_owned() };
    let answered = schema.clone();
    let launch: Launch = Box::new(move |Try { planned, number, context, .. }| {
        let engine = match number {
            1 => caretaker.engine,
            _ => EngineChoice::Only(planned.engine.kind()),
        };
        let optimizer = Optimizer { context, ..caretaker.optimizer.clone() };
        let caretaker = Caretaker { optimizer, engine, ..Caretaker::clone(&caretaker) };
        let statement = statement.clone();
        let rows = async move { caretaker.answer(statement).await.map_err(to_datafusion) };
        let stream = RecordBatchStreamAdapter::new(answered.clone(), futures::stream::once(rows));
        let stages: StageReports = Arc::new(|| Box::pin(async { Ok(Vec::new()) }));
        let running = Execution {
            stream: Box::pin(stream),
            progress: Arc::new(Progress::default),
            plan: planned.plan,
            stages,
        };
        Box::pin(std::future::ready(Ok(running)))
    });
    let cost = Cost { lane, bytes: None };
    let driver = frontend.runner.job_costing(cost, session, sql, logical, planned, launch);
    let (id, progress) = (driver.id(), driver.watcher());
    let stream = driver.stream(schema.clone());
    let reason = REASON.to_owned();
    Ok(Answer { job: id, kind: AnswerKind::Rows, schema, stream, progress, engine: None, reason })
}

/// What a statement needs while it runs.
#[derive(Clone)]
struct Caretaker {
    definer: Definer,
    optimizer: Optimizer,
    engine: EngineChoice,
    check_retention: bool,
    orphan_retention: Duration,
}

impl Caretaker {
    async fn answer(&self, statement: Maintain) -> Result<RecordBatch> {
        let tables = self.definer.lake.maintenance()?;
        match statement {
            Maintain::History { table, limit } => tables.history(&self.location(&table).await?, limit).await,
            Maintain::Detail { table } => tables.detail(&self.location(&table).await?).await,
            Maintain::Restore { table, to } => tables.restore(&self.location(&table).await?, to).await,
            Maintain::Convert { location, partitions } => {
                tables.convert(&store::location(&location)?, &partitions).await
            }
            Maintain::Vacuum { table, retain, dry_run } => {
                let location = self.location(&table).await?;
                let vacuum = Vacuum {
                    retain,
                    check_retention: self.check_retention,
                    orphans_for: self.orphan_retention,
                    dry_run,
                };
                let files = tables.vacuum(&location, &vacuum).await?;
                let base = location.as_str().trim_end_matches('/');
                let paths = match dry_run {
                    true => files.iter().map(|file| format!("{base}/{file}")).collect(),
                    false => vec![base.to_owned()],
                };
                let paths = Arc::new(StringArray::from(paths));
                Ok(RecordBatch::try_new(maintenance::vacuum_schema(), vec![paths])?)
            }
            Maintain::Optimize { table, predicate, zorder_by } => {
                let location = self.location(&table).await?;
                let report = self.optimize(&location, predicate, zorder_by).await?;
                maintenance::rows(&maintenance::optimize_schema(), &[report.row(location.as_str())])
            }
        }
    }

    async fn optimize(
        &self,
        location: &Url,
        predicate: Option<String>,
        columns: Vec<String>,
    ) -> Result<Report> {
        let snapshot = self.definer.lake.snapshot(location).await?;
        snapshot.demand_writable()?;
        let filters = match &predicate {
            Some(text) => self.filters(snapshot.as_ref(), text)?,
            None => Vec::new(),
        };
        let what = Compact { filters, predicate, due_from: None, automatic: false };
        if columns.is_empty() {
            return self.optimizer.compact(location, &what).await;
        }
        self.optimizer.cluster(location, &Cluster { what, columns, engine: self.engine }).await
    }

    /// The conditions of a predicate, each of which must hold for all rows of a file or for none.
    fn filters(&self, snapshot: &dyn LakeSnapshot, text: &str) -> Result<Vec<Expr>> {
        let schema = DFSchema::try_from(snapshot.table(None, None)?.schema()).map_err(from_datafusion)?;
        let filter = self.optimizer.state.create_logical_expr(text, &schema).map_err(from_datafusion)?;
        let filters = split_conjunction_owned(filter);
        match filters.iter().find(|filter| !snapshot.is_on_partitions(filter)) {
            Some(other) => Err(Error::new(
                Code::InvalidStatement,
                format!("OPTIMIZE WHERE: `{other}` is not about partition columns"),
            )
            .hint(match snapshot.partition_by().as_slice() {
                [] => "the table is not partitioned; leave WHERE out".to_owned(),
                names => format!("the table is partitioned by {}", names.join(", ")),
            })),
            None => Ok(filters),
        }
    }

    /// Where a Delta table is.
    async fn location(&self, place: &Place) -> Result<Url> {
        let name = match place {
            Place::Location(location) => return store::location(location),
            Place::Table(name) => name,
        };
        let other = |what: &str| {
            Error::new(Code::Unsupported, format!("`{name}` is {what}, not a Delta table"))
                .hint("CONVERT TO DELTA parquet.'folder' makes a Delta table of Parquet files")
        };
        match self.definer.catalog.table(name) {
            Some(table) if table.format != TableFormat::Delta => return Err(other("made of foreign files")),
            Some(table) => return store::location(&table.location),
            None if self.definer.catalog.view(name).is_some() => return Err(other("a view")),
            None => {}
        }
        let location = self.definer.catalog.default_location(name)?;
        if self.definer.lake.exists(&location).await? {
            return Ok(location);
        }
        let names = self.definer.catalog.names(&name.schema);
        Err(Error::new(Code::UnknownObject, format!("no table `{name}`"))
            .suggest(&name.name, names.iter().map(String::as_str)))
    }
}
