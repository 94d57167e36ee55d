//! INSERT OVERWRITE, INSERT … REPLACE WHERE and TRUNCATE.

use super::fillable;
use super::rows::{find, remove_all};
use super::work::{Read, Work, miscounted, other_tables};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Change, Reads};
use tidemill_sql::changes::{Target, action, replaced, with_rows};
use tidemill_sql::plan_query;
use tidemill_sql::statement::{Insert, InsertMode};

pub(super) async fn truncate(work: &Work) -> Result<u64> {
    let read = work.read("t").await?;
    read.snapshot.demand_writable()?;
    remove_all(work, &read, "TRUNCATE").await
}

pub(super) async fn describe(work: &Work, insert: &Insert) -> Result<LogicalPlan> {
    let read = work.read(&insert.table.name).await?;
    match &insert.mode {
        InsertMode::Append | InsertMode::Overwrite => new_rows(work, &read, insert).await,
        InsertMode::ReplaceWhere(condition) => {
            let (state, sql) = replacing(work, &read, insert, condition, None).await?;
            work.plan_open(&state, &sql).await
        }
    }
}

/// Rows that were written new.
pub(super) async fn insert(work: &Work, insert: &Insert) -> Result<u64> {
    let read = work.read(&insert.table.name).await?;
    read.snapshot.demand_writable()?;
    match &insert.mode {
        InsertMode::ReplaceWhere(condition) => replace_where(work, &read, insert, condition).await,
        InsertMode::Append | InsertMode::Overwrite => {
            let plan = work.close(&read, new_rows(work, &read, insert).await?).await?;
            let (adds, _) = work.write(&work.state, &plan, false).await?;
            let rows = adds.iter().map(|written| written.rows).sum();
            let files = read.snapshot.files(work.state.as_ref(), &[])?;
            let removes = files.iter().map(|file| file.number).collect();
            let mut change = Change { removes, adds, ..Change::new("WRITE") };
            change.parameters.insert("mode".to_owned(), "Overwrite".to_owned());
            change.metrics.insert("numOutputRows".to_owned(), rows);
            work.commit(&read, change).await?;
            Ok(rows)
        }
    }
}

async fn replace_where(work: &Work, read: &Read, insert: &Insert, condition: &str) -> Result<u64> {
    let found = find(work, read, condition).await?;
    let files: Vec<usize> = found.touched.keys().copied().collect();
    let (state, sql) = replacing(work, read, insert, condition, Some(&files)).await?;
    let plan = work.plan(read, &state, &sql).await?;
    let (adds, tally) = work.write(&state, &plan, true).await?;
    let count = |action: i8| tally.get(&action).copied().unwrap_or(0);
    if count(action::REFUSED) > 0 {
        let message = format!("REPLACE WHERE: {} new rows do not pass `{condition}`", count(action::REFUSED));
        return Err(Error::new(Code::BadData, message).hint("select only rows that pass it"));
    }
    let kept = work.rows_of(read, &files).await?.saturating_sub(found.touched.values().sum());
    if count(action::COPY) != kept {
        return Err(miscounted(kept, count(action::COPY)));
    }
    if kept > 0 {
        read.snapshot.demand_rewritable()?;
    }
    let mut change = Change { removes: files, adds, reads: found.reads, ..Change::new("WRITE") };
    if other_tables(&plan)?.contains(&insert.table.name) {
        change.reads = Reads::Everything;
    }
    change.parameters.insert("mode".to_owned(), "Overwrite".to_owned());
    change.parameters.insert("predicate".to_owned(), condition.to_owned());
    change.metrics.insert("numOutputRows".to_owned(), count(action::INSERT));
    change.metrics.insert("numCopiedRows".to_owned(), kept);
    work.commit(read, change).await?;
    Ok(count(action::INSERT))
}

/// The query of rows that stay and new rows, and the session that knows both.
async fn replacing(
    work: &Work,
    read: &Read,
    insert: &Insert,
    condition: &str,
    files: Option<&[usize]>,
) -> Result<(SessionState, String)> {
    let new = work.bind(new_rows(work, read, insert).await?)?;
    let state = with_rows(&work.over(read, files)?, new)?;
    let sql = replaced(&read.target, condition, &format!("SELECT * FROM {}", Target::ROWS_SQL))?;
    Ok((state, sql))
}

async fn new_rows(work: &Work, read: &Read, insert: &Insert) -> Result<LogicalPlan> {
    let plan = plan_query(&work.state, insert.query.clone()).await?;
    let schema = fillable(read.snapshot.as_ref(), &insert.columns_for(&plan))?;
    insert.align(plan, &schema)
}
