//! `VACUUM`: removes data files that no version within the retention needs.
//!
//! ```text
//! in the log, removed longer ago than the retention ─▶ removed
//! never in the log ─▶ removed after max(retention, orphans_for): a running write may be about to commit it
//! ```
//! delta-rs' two modes are these two lines; its full mode alone knows one time for both.

use super::error::from_delta;
use super::features;
use super::table::Table;
use chrono::TimeDelta;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::operations::vacuum::VacuumMode;
use deltalake_core::table::config::TablePropertiesExt;
use std::collections::BTreeSet;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::maintenance::Vacuum;

pub(super) async fn vacuum(table: &Table, vacuum: &Vacuum) -> Result<Vec<String>> {
    let loaded = table.demand().await?;
    // What we could not write may refer to files in ways that we do not know.
    features::demand_writable(loaded.snapshot(), &loaded.schema())?;
    let asked = loaded.snapshot().table_properties().deleted_file_retention_duration();
    let retain = vacuum.retain.unwrap_or(asked);
    if vacuum.check_retention && retain < asked {
        return Err(too_short(retain, asked));
    }
    let orphans_for = retain.max(vacuum.orphans_for);
    let mut passes = vec![(VacuumMode::Full, orphans_for)];
    if orphans_for > retain {
        passes.push((VacuumMode::Lite, retain));
    }
    let mut paths = BTreeSet::new();
    for (mode, retain) in passes {
        let removed = pass(table, mode, retain, vacuum.dry_run).await;
        // Its commits are versions like any others.
        table.forget();
        paths.extend(removed?);
    }
    Ok(paths.into_iter().collect())
}

async fn pass(table: &Table, mode: VacuumMode, retain: Duration, dry_run: bool) -> Result<Vec<String>> {
    let fail = |error| from_delta(error, &table.url);
    let mut opened = DeltaTable::new(table.log_store.clone());
    opened.load().await.map_err(fail)?;
    let retain = TimeDelta::from_std(retain).map_err(|_| {
        Error::new(Code::InvalidStatement, "the retention is longer than time is counted here")
    })?;
    let quiet =
        CommitProperties::default().with_create_checkpoint(false).with_cleanup_expired_logs(Some(false));
    let (_, metrics) = opened
        .vacuum()
        .with_mode(mode)
        .with_retention_period(retain)
        // Checked above, in our words.
        .with_enforce_retention_duration(false)
        .with_dry_run(dry_run)
        .with_commit_properties(quiet)
        .await
        .map_err(fail)?;
    Ok(metrics.files_deleted)
}

fn too_short(retain: Duration, asked: Duration) -> Error {
    let hours = |time: Duration| time.as_secs() / 3600;
    let message = format!(
        "VACUUM with a retention of {} hours: this table keeps removed files for {} hours, for readers of older \
         versions",
        hours(retain),
        hours(asked)
    );
    Error::new(Code::InvalidStatement, message).hint(
        "retain as long, lower the table's `delta.deletedFileRetentionDuration`, or `SET vacuum_retention_check = \
         false` when nobody reads older versions",
    )
}
