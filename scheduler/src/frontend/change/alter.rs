//! ALTER TABLE: one commit that changes what the table is. What it forbids is looked for in the rows first.

use super::super::answers::new_job;
use super::super::cost;
use super::super::query::{Planned, plan_for};
use super::super::service::SqlFrontend;
use super::super::session::Session;
use crate::admission::Request;
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Alter, Change, JobKind, JobSpec, LakeSnapshot, Reads, from_datafusion};
use tidemill_sql::changes::{Target, with_target};
use tidemill_sql::dialect::parse_query;
use tidemill_sql::plan_query;
use tidemill_sql::statement::{AlterAction, AlterTable};
use url::Url;

pub(super) async fn alter(
    frontend: &SqlFrontend,
    session: &Session,
    location: &Url,
    alter: &AlterTable,
) -> Result<()> {
    let snapshot = frontend.definer.lake.snapshot(location).await?;
    let (operation, change, forbidden) = match &alter.action {
        AlterAction::AddColumns(columns) => ("ADD COLUMNS", Alter::AddColumns(columns.clone()), None),
        AlterAction::AddConstraint { name, condition } => (
            "ADD CONSTRAINT",
            Alter::AddConstraint { name: name.clone(), expression: condition.clone() },
            Some((format!("CHECK ({condition})"), format!("({condition}) IS NOT TRUE"))),
        ),
        AlterAction::DropConstraint { name, if_exists } => {
            ("DROP CONSTRAINT", Alter::DropConstraint { name: name.clone(), if_exists: *if_exists }, None)
        }
        AlterAction::SetProperties(properties) => {
            ("SET TBLPROPERTIES", Alter::SetProperties(properties.clone()), None)
        }
        AlterAction::UnsetProperties { keys, if_exists } => (
            "UNSET TBLPROPERTIES",
            Alter::UnsetProperties { keys: keys.clone(), if_exists: *if_exists },
            None,
        ),
        AlterAction::SetNotNull(column) => (
            "CHANGE COLUMN",
            Alter::SetNullable { column: column.clone(), nullable: false },
            Some(("NOT NULL".to_owned(), format!("\"{}\" IS NULL", column.replace('"', "\"\"")))),
        ),
        AlterAction::DropNotNull(column) => {
            ("CHANGE COLUMN", Alter::SetNullable { column: column.clone(), nullable: true }, None)
        }
        AlterAction::SetType { column, data_type } => {
            let (column, data_type) = (column.clone(), data_type.clone());
            ("CHANGE COLUMN", Alter::SetType { column, data_type }, None)
        }
        AlterAction::CommentColumn { column, comment } => {
            let (column, comment) = (column.clone(), comment.clone());
            ("CHANGE COLUMN", Alter::SetColumnComment { column, comment }, None)
        }
    };
    let mut reads = Reads::Nothing;
    if let Some((what, forbidden)) = forbidden {
        reads = Reads::Everything;
        refuse_rows(frontend, session, snapshot.as_ref(), &what, &forbidden).await?;
    }
    snapshot.commit(Change { reads, alter: vec![change], ..Change::new(operation) }).await?;
    Ok(())
}

/// Fails if there are rows for which `forbidden` holds, and shows one.
async fn refuse_rows(
    frontend: &SqlFrontend,
    session: &Session,
    snapshot: &dyn LakeSnapshot,
    what: &str,
    forbidden: &str,
) -> Result<()> {
    let state = with_target(&session.state, snapshot.table(None, None)?)?;
    let sql = format!("SELECT * FROM {} WHERE {forbidden} LIMIT 1", Target::SQL);
    let plan = plan_query(&state, parse_query(&sql)?).await?;
    let Planned { plan, engine, .. } =
        plan_for(&frontend.runner.engines, session.engine, &state, &plan).await?;
    let lane = cost::of(&plan, frontend.runner.heavy_from).lane;
    let (user, priority) = (session.user.clone(), session.limits.priority);
    let _permit = frontend.runner.gate.enter(&Request { user, lane, priority, again: false }).await?;
    let job = JobSpec { id: new_job(), kind: JobKind::Query, title: what.to_owned() };
    let running = engine.execute(job, plan, state.task_ctx()).await?;
    let batches: Vec<_> = running.stream.try_collect().await.map_err(from_datafusion)?;
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(());
    }
    let row = pretty_format_batches(&batches)?;
    Err(Error::new(Code::BadData, format!("there are rows that violate {what}, such as\n{row}"))
        .hint("change or delete them first"))
}
