//! Statements that make and change tables: CREATE TABLE, DELETE, UPDATE, MERGE, overwrites, TRUNCATE, ALTER TABLE.
//!
//! ```text
//! snapshot ─▶ which files are touched (a query on an engine) ─▶ their rows, changed (a query into WriteExec)
//!    ▲                                                                │ [Written], counts
//!    └────────────── Code::Conflict, a few times ◀── commit: files go and come in one version
//! ```
//! Nothing is visible before the commit. Counts of rows are compared with what the log says of the touched files,
//! so that a row that got lost or came twice fails the statement.

mod alter;
mod create;
mod merge;
mod replace;
mod rows;
mod work;

use super::answers::{count_schema, counting, nothing};
use super::api::{Answer, AnswerKind};
use super::drive::{Launch, Try};
use super::params;
use super::query::plan_for;
use super::service::SqlFrontend;
use super::session::Session;
use crate::engines::EngineChoice;
use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::stages::StageReports;
use tidemill_engine::{Execution, LakeSnapshot, from_datafusion};
use tidemill_sql::TableName;
use tidemill_sql::statement::{InsertMode, Statement, TableChange};
pub(super) use work::other_tables;
use work::{What, Work};

impl SqlFrontend {
    /// Runs the statement if it makes a table, or changes one in another way than by appending to it.
    pub(super) async fn change(
        &self,
        session: &Session,
        sql: &str,
        statement: &Statement,
        params: Option<&RecordBatch>,
    ) -> Result<Option<Answer>> {
        let (table, what) = match statement {
            Statement::Insert(insert) if insert.mode != InsertMode::Append => {
                (&insert.table, What::Insert(insert.clone()))
            }
            Statement::CreateTable(create) => {
                refuse_params(params)?;
                return self.create_table(session, sql, create).await.map(Some);
            }
            Statement::Change(change) => match change.as_ref() {
                TableChange::Alter(alter) => {
                    refuse_params(params)?;
                    let location = self.definer.lake_location(&alter.table).await?;
                    alter::alter(self, session, &location, alter).await?;
                    return Ok(Some(nothing()));
                }
                TableChange::Truncate(table) => {
                    refuse_params(params)?;
                    (table, What::Truncate)
                }
                TableChange::Delete(delete) => (&delete.table, What::Delete(delete.clone())),
                TableChange::Update(update) => (&update.table, What::Update(update.clone())),
                TableChange::Merge(merge) => (&merge.table, What::Merge(merge.clone())),
            },
            _ => return Ok(None),
        };
        if params.is_some_and(|params| params.num_rows() != 1) {
            return Err(Error::new(Code::Unsupported, "several rows of parameters for this statement")
                .hint("queries and INSERT INTO take several rows; give one"));
        }
        let work = self.work(session, table, sql, what, params).await?;
        // Faults of the statement show before it begins; without a query it only changes the table's log.
        let plan = match (work.describe().await?, params) {
            (Some(plan), None) => plan,
            // A part of an overwrite's parameters is bound already.
            (Some(plan), Some(params)) if matches!(statement, Statement::Insert(_)) => {
                params::bind_some(plan, params)?
            }
            (Some(plan), Some(params)) => params::bind(plan, params)?,
            (None, _) => LogicalPlanBuilder::empty(false).build().map_err(from_datafusion)?,
        };
        self.begin(session, sql, work, plan).await.map(Some)
    }

    /// Runs the work as a job. `plan` stands for it where the engine is chosen.
    async fn begin(&self, session: &Session, sql: &str, work: Work, plan: LogicalPlan) -> Result<Answer> {
        let planned = plan_for(&self.runner.engines, session.engine, &session.state, &plan).await?;
        let (engine, reason) = (Some(planned.engine.kind()), planned.reason.clone());
        let launch: Launch = Box::new(move |Try { planned, number, context, .. }| {
            let engine = match number {
                1 => work.engine,
                _ => EngineChoice::Only(planned.engine.kind()),
            };
            let work = Work { engine, context, ..work.clone() };
            let progress = work.progress();
            let stream = counting(async move { work.run().await });
            // EXPLAIN ANALYZE takes queries only.
            let stages: StageReports = Arc::new(|| Box::pin(async { Ok(Vec::new()) }));
            Box::pin(async move { Ok(Execution { stream, progress, plan: planned.plan, stages }) })
        });
        let driver = self.runner.job(session, sql, plan, planned, launch);
        let schema = count_schema();
        let (id, progress) = (driver.id(), driver.watcher());
        let stream = driver.stream(schema.clone());
        Ok(Answer { job: id, kind: AnswerKind::Count, schema, stream, progress, engine, reason })
    }

    /// The query that a change comes to, over the whole table: for EXPLAIN and for the types of parameters.
    pub(super) async fn change_plan(
        &self,
        session: &Session,
        change: &TableChange,
    ) -> Result<Option<LogicalPlan>> {
        let what = match change {
            TableChange::Delete(delete) => What::Delete(delete.clone()),
            TableChange::Update(update) => What::Update(update.clone()),
            TableChange::Merge(merge) => What::Merge(merge.clone()),
            TableChange::Truncate(_) | TableChange::Alter(_) => return Ok(None),
        };
        self.work(session, change.table(), "", what, None).await?.describe().await
    }

    async fn work(
        &self,
        session: &Session,
        table: &TableName,
        sql: &str,
        what: What,
        params: Option<&RecordBatch>,
    ) -> Result<Work> {
        Ok(Work {
            runner: self.runner.clone(),
            session: session.clone(),
            state: session.state.clone(),
            engine: session.engine,
            context: session.state.task_ctx(),
            lake: self.definer.lake.clone(),
            location: self.definer.lake_location(table).await?,
            title: sql.to_owned(),
            params: params.cloned(),
            progress: Arc::default(),
            what: Arc::new(what),
        })
    }
}

/// The columns that an INSERT fills which names `columns`, or none. Generated columns that it does not name are
/// left out: the writer computes them.
pub(super) fn fillable(table: &dyn LakeSnapshot, columns: &[String]) -> Result<SchemaRef> {
    let (schema, generated) = (table.row_schema()?, table.generated_columns());
    let given = |field: &&FieldRef| !generated.contains_key(field.name()) || columns.contains(field.name());
    Ok(Arc::new(Schema::new(schema.fields().iter().filter(given).cloned().collect::<Vec<_>>())))
}

fn refuse_params(params: Option<&RecordBatch>) -> Result<()> {
    match params {
        Some(_) => Err(Error::new(Code::Unsupported, "parameters in this statement")
            .hint("queries, INSERT, UPDATE, DELETE and MERGE take parameters")),
        None => Ok(()),
    }
}
