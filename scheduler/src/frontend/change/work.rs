//! One change under way: a snapshot, queries over it, and the commit; again when others were faster.

use super::super::answers::new_job;
use super::super::define::lake_sink;
use super::super::params;
use super::super::query::{Planned, Runner, plan_for};
use super::super::session::Session;
use super::create::{self, Creation};
use super::{merge, replace, rows};
use crate::engines::EngineChoice;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use backon::{BackoffBuilder, ExponentialBuilder};
use datafusion::common::Column;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Limit, LogicalPlan};
use futures::TryStreamExt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result, SinkSpec, WriteScope, Written};
use tidemill_engine::exec::{Tally, WriteExec, WriteSpec, collect_written, split_tally};
use tidemill_engine::{
    Change, JobKind, JobSpec, LakeFile, LakeFormat, LakeSnapshot, Progress, from_datafusion,
};
use tidemill_sql::catalog::pinned;
use tidemill_sql::changes::{FILE_NUMBER, ROW_ACTION, Target, is_target, with_target};
use tidemill_sql::dialect::parse_query;
use tidemill_sql::plan_query;
use tidemill_sql::statement::{Delete, Insert, Merge, Update};
use url::Url;

/// How often a change is worked out anew because others were faster.
const TRIES: usize = 4;

pub(super) enum What {
    Delete(Delete),
    Update(Update),
    Merge(Merge),
    Truncate,
    /// An overwrite, of all rows or of some.
    Insert(Insert),
    /// A table with the rows of a query, new or in the place of another one.
    Create(Box<Creation>),
}

type Watch = Arc<dyn Fn() -> Progress + Send + Sync>;

#[derive(Clone)]
pub(super) struct Work {
    pub(super) runner: Runner,
    pub(super) session: Session,
    /// The session's; of one try, with every table as it was when the try first asked for it.
    pub(super) state: Arc<SessionState>,
    pub(super) engine: EngineChoice,
    /// With the memory that the job may use.
    pub(super) context: Arc<TaskContext>,
    pub(super) lake: Arc<dyn LakeFormat>,
    pub(super) location: Url,
    pub(super) title: String,
    pub(super) params: Option<RecordBatch>,
    /// Of the query that runs at the moment.
    pub(super) progress: Arc<Mutex<Option<Watch>>>,
    pub(super) what: Arc<What>,
}

/// The table as one try of a change sees it.
pub(super) struct Read {
    pub(super) snapshot: Arc<dyn LakeSnapshot>,
    pub(super) target: Target,
}

impl Work {
    pub(super) fn progress(&self) -> Watch {
        let current = self.progress.clone();
        Arc::new(move || current.lock().as_ref().map(|watch| watch()).unwrap_or_default())
    }

    /// Rows that were changed.
    pub(super) async fn run(self) -> Result<u64> {
        let mut waits = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(50))
            .with_max_times(TRIES)
            .build();
        loop {
            let state = Arc::new(pinned(&self.session.state));
            match (Self { state, ..self.clone() }.attempt().await, waits.next()) {
                (Err(error), Some(wait)) if error.code == Code::Conflict => {
                    tracing::debug!(table = %self.location, %error, "a change is worked out anew");
                    tokio::time::sleep(wait).await;
                }
                (outcome, _) => return outcome,
            }
        }
    }

    async fn attempt(&self) -> Result<u64> {
        match self.what.as_ref() {
            What::Delete(delete) => rows::delete(self, delete).await,
            What::Update(update) => rows::update(self, update).await,
            What::Merge(merge) => merge::merge(self, merge).await,
            What::Truncate => replace::truncate(self).await,
            What::Insert(insert) => replace::insert(self, insert).await,
            What::Create(creation) => create::fill(self, creation).await,
        }
    }

    /// The query that makes the new rows, over the whole table and with its parameters open; `None` where there
    /// is none.
    pub(super) async fn describe(&self) -> Result<Option<LogicalPlan>> {
        match self.what.as_ref() {
            What::Delete(delete) => rows::describe_delete(self, delete).await,
            What::Update(update) => rows::describe_update(self, update).await.map(Some),
            What::Merge(merge) => merge::describe(self, merge).await.map(Some),
            What::Truncate => Ok(None),
            What::Insert(insert) => replace::describe(self, insert).await.map(Some),
            What::Create(creation) => create::describe(self, creation).await.map(Some),
        }
    }

    pub(super) async fn read(&self, alias: &str) -> Result<Read> {
        let snapshot = self.lake.snapshot(&self.location).await?;
        let schema = snapshot.table(None, None)?.schema();
        let target = Target::new(alias, &schema, &snapshot.generated_columns());
        Ok(Read { snapshot, target })
    }

    /// A session that knows the target, made of all files or of some.
    pub(super) fn over(&self, read: &Read, files: Option<&[usize]>) -> Result<SessionState> {
        with_target(&self.state, read.snapshot.table(files, Some(FILE_NUMBER))?)
    }

    /// Plans a query with its parameters open.
    pub(super) async fn plan_open(&self, state: &SessionState, sql: &str) -> Result<LogicalPlan> {
        plan_query(state, parse_query(sql)?).await
    }

    pub(super) async fn plan(&self, read: &Read, state: &SessionState, sql: &str) -> Result<LogicalPlan> {
        self.close(read, self.plan_open(state, sql).await?).await
    }

    /// A plan to run: with its parameters bound, and sure to see one version of the target. A query that names the
    /// target itself has opened it anew, maybe at a later version than the one that was read.
    pub(super) async fn close(&self, read: &Read, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = self.bind(plan)?;
        if !other_tables(&plan)?.is_empty()
            && self.lake.snapshot(&self.location).await?.version() != read.snapshot.version()
        {
            let message = "the table was changed by others while the statement was planned";
            return Err(Error::new(Code::Conflict, message).hint("run the statement again"));
        }
        Ok(plan)
    }

    pub(super) fn bind(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match &self.params {
            Some(params) => params::bind_some(plan, params),
            None => Ok(plan),
        }
    }

    pub(super) async fn rows(&self, state: &SessionState, plan: &LogicalPlan) -> Result<Vec<RecordBatch>> {
        let Planned { plan, engine, .. } = plan_for(&self.runner.engines, self.engine, state, plan).await?;
        let job = JobSpec { id: new_job(), kind: JobKind::Write, title: self.title.clone() };
        let running = engine.execute(job, plan, self.context.clone()).await?;
        *self.progress.lock() = Some(running.progress);
        running.stream.try_collect().await.map_err(from_datafusion)
    }

    /// Writes the rows of a plan; `tally` if it has a column that says what happens to each.
    pub(super) async fn write(
        &self,
        state: &SessionState,
        plan: &LogicalPlan,
        tally: bool,
    ) -> Result<(Vec<Written>, Tally)> {
        self.write_to(lake_sink(&self.location), state, plan, tally).await
    }

    /// The same by a sink of the table with options of its own.
    pub(super) async fn write_to(
        &self,
        sink: SinkSpec,
        state: &SessionState,
        plan: &LogicalPlan,
        tally: bool,
    ) -> Result<(Vec<Written>, Tally)> {
        let Planned { plan, engine, .. } = plan_for(&self.runner.engines, self.engine, state, plan).await?;
        let id = new_job();
        let scope = WriteScope { job: id.as_str().to_owned(), run: 1, task: id.as_str().to_owned() };
        let tally = tally.then(|| ROW_ACTION.to_owned());
        let spec = WriteSpec { sink, scope, tally };
        let plan = Arc::new(WriteExec::new(Arc::new(spec), plan));
        let job = JobSpec { id, kind: JobKind::Write, title: self.title.clone() };
        let running = engine.execute(job, plan, self.context.clone()).await?;
        *self.progress.lock() = Some(running.progress);
        Ok(split_tally(collect_written(running.stream).await?))
    }

    /// `(file, rows)` of a query that gives them.
    pub(super) async fn touched(
        &self,
        state: &SessionState,
        plan: &LogicalPlan,
    ) -> Result<BTreeMap<usize, u64>> {
        let mut touched = BTreeMap::new();
        for batch in self.rows(state, plan).await? {
            let numbers = batch.column(0).as_primitive::<Int64Type>();
            let counts = batch.column(1).as_primitive::<Int64Type>();
            for (number, count) in numbers.iter().flatten().zip(counts.iter().flatten()) {
                *touched.entry(usize::try_from(number).unwrap_or(usize::MAX)).or_default() +=
                    count.unsigned_abs();
            }
        }
        Ok(touched)
    }

    /// Each of these files with all of its rows.
    pub(super) async fn whole(&self, read: &Read, files: &[LakeFile]) -> Result<BTreeMap<usize, u64>> {
        let mut whole = BTreeMap::new();
        for file in files {
            let rows = match file.rows.filter(|_| !file.has_deleted_rows) {
                Some(rows) => rows,
                None => self.rows_of(read, &[file.number]).await?,
            };
            whole.insert(file.number, rows);
        }
        Ok(whole)
    }

    /// How many rows these files hold: as the log says, or as a query counts.
    pub(super) async fn rows_of(&self, read: &Read, files: &[usize]) -> Result<u64> {
        let all = read.snapshot.files(self.state.as_ref(), &[])?;
        let known = files
            .iter()
            .map(|number| all.get(*number).filter(|file| !file.has_deleted_rows).and_then(|file| file.rows));
        if let Some(rows) = known.sum::<Option<u64>>() {
            return Ok(rows);
        }
        let state = self.over(read, Some(files))?;
        let plan = self.plan_open(&state, &format!("SELECT count(*) FROM {}", Target::SQL)).await?;
        let batches = self.rows(&state, &plan).await?;
        let counts = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter());
        Ok(counts.flatten().map(i64::unsigned_abs).sum())
    }

    pub(super) async fn commit(&self, read: &Read, mut change: Change) -> Result<u64> {
        change.metrics.insert("numRemovedFiles".to_owned(), change.removes.len() as u64);
        change.metrics.insert("numAddedFiles".to_owned(), change.adds.len() as u64);
        read.snapshot.commit(change).await
    }
}

/// Names of the tables that a plan reads besides the target as it was read.
pub(in crate::frontend) fn other_tables(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut names = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && !is_target(&scan.table_name)
        {
            names.push(scan.table_name.table().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(names)
}

/// Refuses what may give other rows when it is asked again: a change asks for the rows that it is about more than
/// once, and what is one row of one query and another row of the next would be lost or come twice.
pub(super) fn demand_repeatable(plan: &LogicalPlan, what: &str) -> Result<()> {
    let mut fault = None;
    plan.apply_with_subqueries(|node| {
        if node.expressions().iter().any(Expr::is_volatile) {
            let hint = "leave random(), uuid() and the like out of it, or CREATE TABLE … AS the rows first";
            fault = Some(("that changes from call to call", hint));
        } else if matches!(node, LogicalPlan::Limit(limit) if !is_decided(limit)) {
            let hint = "name all columns that it gives in its ORDER BY, or CREATE TABLE … AS its rows first";
            fault = Some(("with a LIMIT that may give other rows each time", hint));
        }
        Ok(if fault.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(from_datafusion)?;
    match fault {
        Some((why, hint)) => Err(Error::new(Code::Unsupported, format!("{what} {why}")).hint(hint)),
        None => Ok(()),
    }
}

/// Whether a LIMIT gives the same values each time: its rows are ordered by all that they have, or are all alike.
fn is_decided(limit: &Limit) -> bool {
    let mut node = limit.input.as_ref();
    while let LogicalPlan::Projection(projection) = node {
        if projection.expr.iter().all(|expr| matches!(expr, Expr::Literal(..))) {
            return true;
        }
        node = projection.input.as_ref();
    }
    match node {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Sort(sort) => {
            let keys: Vec<&Column> = sort.expr.iter().filter_map(|key| key.expr.try_as_col()).collect();
            limit.input.schema().columns().iter().all(|column| keys.contains(&column))
        }
        _ => false,
    }
}

/// The conditions of the first filter of a plan.
pub(super) fn conditions(plan: &LogicalPlan) -> Vec<Expr> {
    let mut node = plan;
    loop {
        match node {
            LogicalPlan::Filter(filter) => {
                return split_conjunction(&filter.predicate).into_iter().cloned().collect();
            }
            other => match other.inputs().first() {
                Some(input) => node = input,
                None => return Vec::new(),
            },
        }
    }
}

pub(super) fn total(written: &[Written]) -> u64 {
    written.iter().map(|written| written.rows).sum()
}

/// A row was lost or came twice between the two queries of a change.
pub(super) fn miscounted(expected: u64, found: u64) -> Error {
    Error::internal(format!("the rewritten files should hold {expected} rows, and {found} were found"))
        .hint("nothing was changed; a condition with NOT IN over NULLs can be written as NOT EXISTS")
}
