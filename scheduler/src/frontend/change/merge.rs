//! MERGE: one join finds the touched files, another one makes their new rows.

use super::super::define::lake_sink;
use super::work::{Read, Work, demand_repeatable, miscounted, other_tables};
use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::utils::split_conjunction;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Alter, Change, Reads, from_datafusion};
use tidemill_sql::changes::{MergeQueries, action, added_columns};
use tidemill_sql::statement::{Merge, MergeWhen};

/// The option of the lake's sink for columns that the commit adds to the table, as a schema in JSON.
const ADD_COLUMNS: &str = "add_columns";

/// What a MERGE brings together.
struct Sides {
    /// The target has the columns of `added`, too.
    read: Read,
    /// Columns that the table gets.
    added: Schema,
    /// Names of the source's columns.
    source: Vec<String>,
}

pub(super) async fn describe(work: &Work, merge: &Merge) -> Result<LogicalPlan> {
    let Sides { read, source, .. } = sides(work, merge).await?;
    let queries = MergeQueries::new(&read.target, merge, source)?;
    work.plan_open(&work.over(&read, None)?, &queries.merged()?).await
}

pub(super) async fn merge(work: &Work, merge: &Merge) -> Result<u64> {
    let Sides { read, added, source } = sides(work, merge).await?;
    read.snapshot.demand_writable()?;
    let queries = MergeQueries::new(&read.target, merge, source)?;
    let whole = work.over(&read, None)?;
    demand_repeatable(&work.plan_open(&whole, &queries.conditions()).await?, "a condition of MERGE")?;
    let find = work.plan(&read, &whole, &queries.touched()).await?;
    let rewrites = queries.has(MergeWhen::Matched) || queries.has(MergeWhen::NotMatchedBySource);
    let touched: Vec<usize> = if queries.has(MergeWhen::NotMatchedBySource) {
        read.snapshot.files(work.state.as_ref(), &[])?.iter().map(|file| file.number).collect()
    } else if rewrites {
        work.touched(&whole, &find).await?.into_keys().collect()
    } else {
        Vec::new()
    };
    let state = if rewrites { work.over(&read, Some(&touched))? } else { whole };
    let plan = work.plan(&read, &state, &queries.merged()?).await?;
    let mut sink = lake_sink(&work.location);
    if !added.fields().is_empty() {
        sink.options.insert(ADD_COLUMNS.to_owned(), serde_json::to_string(&added)?);
    }
    let (adds, tally) = work.write_to(sink, &state, &plan, true).await?;
    let count = |action: i8| tally.get(&action).copied().unwrap_or(0);
    let (copied, updated, inserted) = (count(action::COPY), count(action::UPDATE), count(action::INSERT));
    let mut deleted = count(action::DELETE);
    let rows = work.rows_of(&read, &touched).await?;
    if copied + updated + deleted > rows && rewrites {
        if !queries.allows_several_matches() {
            return Err(Error::new(
                Code::BadData,
                "MERGE: several rows of the source match one row of the table",
            )
            .hint("make the source unique by the columns of ON, with SELECT DISTINCT or GROUP BY"));
        }
        deleted = rows.saturating_sub(copied + updated);
    }
    if rewrites && copied + updated + deleted != rows {
        return Err(miscounted(rows, copied + updated + deleted));
    }
    let (removes, adds) = match updated + deleted + inserted {
        0 if added.fields().is_empty() => return Ok(0),
        // The table gets its columns all the same, as in Spark.
        0 => (Vec::new(), Vec::new()),
        _ => (touched, adds),
    };
    if !removes.is_empty() {
        read.snapshot.demand_rewritable()?;
    }
    let mut change = Change { removes, adds, reads: reads(&read, merge, &find)?, ..Change::new("MERGE") };
    if !added.fields().is_empty() {
        change.alter.push(Alter::AddColumns(Arc::new(added)));
    }
    for (name, rows) in [
        ("numTargetRowsCopied", copied),
        ("numTargetRowsUpdated", updated),
        ("numTargetRowsInserted", inserted),
        ("numTargetRowsDeleted", deleted),
    ] {
        change.metrics.insert(name.to_owned(), rows);
    }
    change.parameters.insert("predicate".to_owned(), merge.on.clone());
    work.commit(&read, change).await?;
    Ok(updated + deleted + inserted)
}

async fn sides(work: &Work, merge: &Merge) -> Result<Sides> {
    let mut read = work.read(&merge.alias).await?;
    let source = source_schema(work, merge).await?;
    let added = added_columns(&read.target, merge, &source)?;
    read.target.add(&added);
    let source = source.fields().iter().map(|field| field.name().clone()).collect();
    Ok(Sides { read, added, source })
}

/// The source's columns.
async fn source_schema(work: &Work, merge: &Merge) -> Result<Schema> {
    let plan = work.plan_open(&work.state, &MergeQueries::source(merge)).await?;
    demand_repeatable(&plan, "a source of MERGE")?;
    Ok(plan.schema().as_arrow().clone())
}

/// What of the target the statement looks at: the conditions of ON over the target alone, unless its source is
/// the target, too.
fn reads(read: &Read, merge: &Merge, find: &LogicalPlan) -> Result<Reads> {
    let by_source = merge.clauses.iter().any(|clause| clause.when == MergeWhen::NotMatchedBySource);
    let by_itself = other_tables(find)?.contains(&merge.table.name);
    let mut filters = Vec::new();
    if !by_source && !by_itself {
        find.apply(|node| {
            let LogicalPlan::Join(join) = node else { return Ok(TreeNodeRecursion::Continue) };
            for condition in join.filter.iter().flat_map(split_conjunction) {
                let columns = condition.column_refs();
                let of_target = |column: &&datafusion::common::Column| {
                    column.relation.as_ref().is_some_and(|table| table.table() == read.target.alias)
                };
                if !columns.is_empty() && columns.iter().all(of_target) {
                    filters.push(condition.clone());
                }
            }
            Ok(TreeNodeRecursion::Stop)
        })
        .map_err(from_datafusion)?;
    }
    Ok(if filters.is_empty() { Reads::Everything } else { Reads::Matching(filters) })
}
