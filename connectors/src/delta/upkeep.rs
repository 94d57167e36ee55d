//! What is done for a table without being asked: checkpoints and the clean-up of its log.

use super::error::from_delta;
use super::features;
use super::table::Table;
use deltalake_core::table::config::TablePropertiesExt;
use deltalake_core::{DeltaTable, checkpoints};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tidemill_core::{Error, Result};
use tidemill_engine::maintenance::Facts;

/// Databricks' and delta-rs' word for compaction without being asked.
const AUTO_COMPACT: &str = "delta.autoOptimize.autoCompact";

pub(super) async fn facts(table: &Table) -> Result<Facts> {
    let loaded = table.demand().await?;
    let snapshot = loaded.snapshot();
    let refused = snapshot.metadata().configuration().get(AUTO_COMPACT).is_some_and(|value| value == "false");
    let writable = features::demand_writable(snapshot, &loaded.schema()).is_ok();
    Ok(Facts {
        version: loaded.version(),
        checkpoint: last_checkpoint(table).await?,
        cleans_log: writable && snapshot.table_properties().enable_expired_log_cleanup(),
        compacts: writable && !refused,
    })
}

async fn last_checkpoint(table: &Table) -> Result<Option<u64>> {
    let log = table.log_store.object_store(None);
    let body = match log.get(&Path::from("_delta_log/_last_checkpoint")).await {
        Ok(found) => found.bytes().await?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // A hint that does not read is as good as none.
    let hint: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    Ok(hint.and_then(|hint| hint.get("version")?.as_u64()))
}

pub(super) async fn checkpoint(table: &Table) -> Result<()> {
    let newest = newest(table).await?;
    checkpoints::create_checkpoint(&newest, None).await.map_err(|error| from_delta(error, &table.url))?;
    // A snapshot that grew by updates gets slower with each; the next one begins at the checkpoint.
    table.forget();
    Ok(())
}

pub(super) async fn clean_log(table: &Table) -> Result<usize> {
    let newest = newest(table).await?;
    checkpoints::cleanup_metadata(&newest, None).await.map_err(|error| from_delta(error, &table.url))
}

async fn newest(table: &Table) -> Result<DeltaTable, Error> {
    let mut newest = DeltaTable::new(table.log_store.clone());
    newest.load().await.map_err(|error| from_delta(error, &table.url))?;
    Ok(newest)
}
