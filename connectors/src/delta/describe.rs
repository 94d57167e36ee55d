//! `DESCRIBE HISTORY` and `DESCRIBE DETAIL`.

use super::error::from_delta;
use super::log::{CommitFile, commit_files, commit_info};
use super::table::Table;
use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};
use tidemill_core::{Error, Result};
use tidemill_engine::maintenance::{detail_schema, history_schema, rows};

/// Commit files that are read at a time.
const READ_AT_ONCE: usize = 16;

pub(super) async fn history(table: &Table, limit: Option<usize>) -> Result<RecordBatch> {
    table.demand().await?;
    let mut commits = commit_files(table).await?;
    commits.reverse();
    commits.truncate(limit.unwrap_or(usize::MAX));
    let found: Vec<Option<Value>> = futures::stream::iter(commits)
        .map(|commit| async move {
            let info = commit_info(table, &commit).await?;
            Ok::<_, Error>(info.map(|info| row(&commit, &info)))
        })
        .buffered(READ_AT_ONCE)
        .try_collect()
        .await?;
    rows(&history_schema(), &found.into_iter().flatten().collect::<Vec<_>>())
}

fn row(commit: &CommitFile, info: &Value) -> Value {
    let text = |name: &str| match info.get(name) {
        None | Some(Value::Null) => Value::Null,
        Some(value) => Value::String(as_text(value)),
    };
    let whole = |name: &str| info.get(name).and_then(Value::as_i64);
    // Such a time is the table's own word; the file's time is only what the store says.
    let time = whole("inCommitTimestamp").map_or(commit.time(), |millis| millis.saturating_mul(1_000));
    json!({
        "version": commit.version,
        "timestamp": time,
        "userId": text("userId"),
        "userName": text("userName"),
        "operation": text("operation"),
        "operationParameters": texts(info.get("operationParameters")),
        "job": text("job"),
        "notebook": text("notebook"),
        "clusterId": text("clusterId"),
        "readVersion": whole("readVersion"),
        "isolationLevel": text("isolationLevel"),
        "isBlindAppend": info.get("isBlindAppend").and_then(Value::as_bool),
        "operationMetrics": texts(info.get("operationMetrics")),
        "userMetadata": text("userMetadata"),
        "engineInfo": text("engineInfo"),
    })
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A map of texts; writers differ in whether its values are texts or JSON.
fn texts(map: Option<&Value>) -> Value {
    match map {
        Some(Value::Object(entries)) => {
            let text = |value: &Value| if value.is_null() { Value::Null } else { as_text(value).into() };
            Value::Object(entries.iter().map(|(key, value)| (key.clone(), text(value))).collect())
        }
        _ => Value::Null,
    }
}

pub(super) async fn detail(table: &Table) -> Result<RecordBatch> {
    let loaded = table.demand().await?;
    let snapshot = loaded.snapshot();
    let (metadata, protocol) = (snapshot.metadata(), snapshot.protocol());
    let files = snapshot.try_log_data().map_err(|error| from_delta(error, &table.url))?;
    let micros = |millis: i64| millis.saturating_mul(1_000);
    let mut features: Vec<String> = protocol
        .reader_features()
        .unwrap_or_default()
        .iter()
        .chain(protocol.writer_features().unwrap_or_default())
        .map(ToString::to_string)
        .collect();
    features.sort_unstable();
    features.dedup();
    let mut properties: Vec<_> = metadata.configuration().iter().collect();
    properties.sort();
    let properties: Map<String, Value> =
        properties.into_iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    let row = json!({
        "format": "delta",
        "id": metadata.id(),
        "name": metadata.name(),
        "description": metadata.description(),
        "location": table.url.as_str(),
        "createdAt": metadata.created_time().map(micros),
        "lastModified": snapshot.version_timestamp(loaded.version()).map(micros),
        "partitionColumns": loaded.partition_columns(),
        "clusteringColumns": [],
        "numFiles": files.num_files(),
        "sizeInBytes": files.iter().map(|file| file.size()).sum::<i64>(),
        "properties": properties,
        "minReaderVersion": protocol.min_reader_version(),
        "minWriterVersion": protocol.min_writer_version(),
        "tableFeatures": features,
    });
    rows(&detail_schema(), &[row])
}
