//! `RESTORE`: an earlier version becomes the newest one.

use super::error::from_delta;
use super::features;
use super::log::load;
use super::table::Table;
use arrow::array::RecordBatch;
use backon::{ExponentialBuilder, Retryable};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::transaction::CommitProperties;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::TableVersion;
use tidemill_engine::maintenance::{restore_schema, rows};

/// Path and size of every file of a version.
type Files = BTreeMap<String, i64>;

pub(super) async fn restore(table: &Table, to: TableVersion) -> Result<RecordBatch> {
    let newest = table.demand().await?;
    let version = table.number_of(&newest, to).await?;
    let pauses = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(Duration::from_secs(1))
        .with_max_times(10);
    // Against a pipeline that commits all the time the next version is a race; what is restored stays the same.
    (|| attempt(table, version)).retry(pauses).when(|error: &Error| error.code == Code::Conflict).await
}

async fn attempt(table: &Table, version: u64) -> Result<RecordBatch> {
    let fail = |error| from_delta(error, &table.url);
    let loaded = table.demand().await?;
    features::demand_writable(loaded.snapshot(), &loaded.schema())?;
    if version >= loaded.version() {
        return Err(Error::new(
            Code::InvalidStatement,
            format!("version {version} is the newest one already"),
        )
        .hint("DESCRIBE HISTORY shows the versions before it"));
    }
    let target = load(table, version).await?;
    let wanted = target.snapshot().map_err(fail)?.snapshot();
    features::demand_writable(wanted, &wanted.arrow_schema())?;
    let mut now = DeltaTable::new(table.log_store.clone());
    now.load().await.map_err(fail)?;
    let before = files(&now).map_err(fail)?;
    let quiet =
        CommitProperties::default().with_create_checkpoint(false).with_cleanup_expired_logs(Some(false));
    let restored = now.restore().with_version_to_restore(version).with_commit_properties(quiet).await;
    table.forget();
    let (restored, _) = restored.map_err(|error| match error.to_string() {
        message if message.contains("missing file") => {
            Error::new(Code::NotFound, format!("files of version {version} are no longer there: {message}"))
                .hint("VACUUM removed them; DESCRIBE HISTORY shows newer versions")
        }
        _ => fail(error),
    })?;
    let after = files(&restored).map_err(fail)?;
    let only_in = |some: &Files, other: &Files| -> (usize, i64) {
        let gone: Vec<i64> =
            some.iter().filter(|(path, _)| !other.contains_key(*path)).map(|(_, size)| *size).collect();
        (gone.len(), gone.iter().sum())
    };
    let (removed, removed_size) = only_in(&before, &after);
    let (added, added_size) = only_in(&after, &before);
    let row = json!({
        "table_size_after_restore": after.values().sum::<i64>(),
        "num_of_files_after_restore": after.len(),
        "num_removed_files": removed,
        "num_restored_files": added,
        "removed_files_size": removed_size,
        "restored_files_size": added_size,
    });
    rows(&restore_schema(), &[row])
}

fn files(table: &DeltaTable) -> deltalake_core::DeltaResult<Files> {
    let data = table.snapshot()?.snapshot().try_log_data()?;
    Ok(data.iter().map(|file| (file.path().into_owned(), file.size())).collect())
}
