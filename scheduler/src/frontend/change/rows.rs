//! DELETE and UPDATE: find the touched files, write what they become.

use super::work::{Read, Work, conditions, demand_repeatable, miscounted, other_tables, total};
use datafusion::logical_expr::LogicalPlan;
use std::collections::BTreeMap;
use tidemill_core::Result;
use tidemill_engine::{Change, Reads};
use tidemill_sql::changes;
use tidemill_sql::statement::{Delete, Update};

pub(super) async fn describe_delete(work: &Work, delete: &Delete) -> Result<Option<LogicalPlan>> {
    let Some(condition) = &delete.condition else { return Ok(None) };
    let read = work.read(&delete.alias).await?;
    let state = work.over(&read, None)?;
    let plan = work.plan_open(&state, &changes::deleted(&read.target, condition)?).await?;
    Ok(Some(plan))
}

pub(super) async fn describe_update(work: &Work, update: &Update) -> Result<LogicalPlan> {
    let read = work.read(&update.alias).await?;
    let state = work.over(&read, None)?;
    let sql = changes::updated(&read.target, &update.set, update.condition.as_deref())?;
    work.plan_open(&state, &sql).await
}

pub(super) async fn delete(work: &Work, delete: &Delete) -> Result<u64> {
    let read = work.read(&delete.alias).await?;
    read.snapshot.demand_writable()?;
    let Some(condition) = &delete.condition else { return remove_all(work, &read, "DELETE").await };
    let found = find(work, &read, condition).await?;
    if found.touched.is_empty() {
        return Ok(0);
    }
    let files = read.snapshot.files(work.state.as_ref(), &[])?;
    let is_gone = |number: usize, hits: u64| {
        found.on_partitions
            || files.get(number).is_some_and(|file| !file.has_deleted_rows && file.rows == Some(hits))
    };
    let partly: Vec<usize> =
        found.touched.iter().filter(|(number, hits)| !is_gone(**number, **hits)).map(|(n, _)| *n).collect();
    let mut change = Change::new("DELETE");
    if !partly.is_empty() {
        read.snapshot.demand_rewritable()?;
        let hits: u64 = partly.iter().filter_map(|number| found.touched.get(number)).sum();
        let kept = work.rows_of(&read, &partly).await?.saturating_sub(hits);
        let state = work.over(&read, Some(&partly))?;
        let plan = work.plan(&read, &state, &changes::deleted(&read.target, condition)?).await?;
        (change.adds, _) = work.write(&state, &plan, false).await?;
        if total(&change.adds) != kept {
            return Err(miscounted(kept, total(&change.adds)));
        }
        change.metrics.insert("numCopiedRows".to_owned(), kept);
    }
    let deleted: u64 = found.touched.values().sum();
    change.metrics.insert("numDeletedRows".to_owned(), deleted);
    change.removes = found.touched.into_keys().collect();
    change.reads = found.reads;
    change.parameters.insert("predicate".to_owned(), condition.clone());
    work.commit(&read, change).await?;
    Ok(deleted)
}

pub(super) async fn update(work: &Work, update: &Update) -> Result<u64> {
    let read = work.read(&update.alias).await?;
    read.snapshot.demand_writable()?;
    read.snapshot.demand_rewritable()?;
    let found = match &update.condition {
        Some(condition) => find(work, &read, condition).await?,
        None => {
            let files = read.snapshot.files(work.state.as_ref(), &[])?;
            let touched = work.whole(&read, &files).await?;
            Found { touched, on_partitions: false, reads: Reads::Everything }
        }
    };
    if found.touched.is_empty() {
        return Ok(0);
    }
    let numbers: Vec<usize> = found.touched.keys().copied().collect();
    let rows = work.rows_of(&read, &numbers).await?;
    let state = work.over(&read, Some(&numbers))?;
    let sql = changes::updated(&read.target, &update.set, update.condition.as_deref())?;
    let plan = work.plan(&read, &state, &sql).await?;
    let itself = other_tables(&plan)?.contains(&update.table.name);
    let (adds, _) = work.write(&state, &plan, false).await?;
    if total(&adds) != rows {
        return Err(miscounted(rows, total(&adds)));
    }
    let updated: u64 = found.touched.values().sum();
    let reads = if itself { Reads::Everything } else { found.reads };
    let mut change = Change { removes: numbers, adds, reads, ..Change::new("UPDATE") };
    change.metrics.insert("numUpdatedRows".to_owned(), updated);
    change.metrics.insert("numCopiedRows".to_owned(), rows.saturating_sub(updated));
    if let Some(condition) = &update.condition {
        change.parameters.insert("predicate".to_owned(), condition.clone());
    }
    work.commit(&read, change).await?;
    Ok(updated)
}

/// All files go; nothing is read.
pub(super) async fn remove_all(work: &Work, read: &Read, operation: &str) -> Result<u64> {
    let files = read.snapshot.files(work.state.as_ref(), &[])?;
    let numbers: Vec<usize> = files.iter().map(|file| file.number).collect();
    if numbers.is_empty() {
        return Ok(0);
    }
    let rows = work.rows_of(read, &numbers).await?;
    let mut change = Change { removes: numbers, ..Change::new(operation) };
    change.metrics.insert("numDeletedRows".to_owned(), rows);
    work.commit(read, change).await?;
    Ok(rows)
}

/// Which files have rows that pass a condition.
pub(super) struct Found {
    pub(super) touched: BTreeMap<usize, u64>,
    /// Whether all rows of the touched files pass, as partition values alone decide.
    pub(super) on_partitions: bool,
    pub(super) reads: Reads,
}

pub(super) async fn find(work: &Work, read: &Read, condition: &str) -> Result<Found> {
    let state = work.over(read, None)?;
    let plan = work.plan(read, &state, &changes::touched(&read.target, condition)?).await?;
    demand_repeatable(&plan, "a condition")?;
    let filters = conditions(&plan);
    let on_partitions =
        !filters.is_empty() && filters.iter().all(|filter| read.snapshot.is_on_partitions(filter));
    // A subquery may read the table itself.
    let reads = match other_tables(&plan)?.is_empty() {
        true => Reads::Matching(filters.clone()),
        false => Reads::Everything,
    };
    if on_partitions {
        let touched = work.whole(read, &read.snapshot.files(&state, &filters)?).await?;
        return Ok(Found { touched, on_partitions, reads });
    }
    Ok(Found { touched: work.touched(&state, &plan).await?, on_partitions, reads })
}
