//! Tables that are not there yet: what they will be, and the one commit that makes them with their rows.
//!
//! ```text
//! columns, options ─▶ Draft ─┬─ its text, in the plan ─▶ each task's writer: a table in memory of this one entry
//!                            └─ and what they wrote ─┬─ version 0, where there is no table
//!                                                    └─ the next version of the table whose place it takes
//! ```
//! A draft has the id of the table that it becomes, so that files which were written for it go to no other table.

use super::alter::Definition;
use super::columns::Columns;
use super::error::from_delta;
use super::rules::{self, Rules};
use super::snapshot::added;
use super::table::{Loaded, Table, commit_path};
use super::transaction::entry;
use super::{features, schema, written};
use arrow::datatypes::{DataType, Schema};
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, CommitInfo, EagerSnapshot, StructType};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{Alter, Change, TableDraft, TableOptions};
use url::Url;
use uuid::Uuid;

#[derive(Debug)]
pub(super) struct Draft(Definition);

impl Draft {
    /// Fails where nobody could write to such a table.
    pub(super) fn new(schema: &Schema, options: &TableOptions) -> Result<Self> {
        let columns = Arc::new(schema::lake_schema(schema)?);
        check_partitioning(&columns, &options.partition_by)?;
        let kernel: StructType = columns.as_ref().try_into_kernel()?;
        let metadata = json!({
            "id": Uuid::new_v4().to_string(),
            "name": null,
            "description": null,
            "format": { "provider": "parquet", "options": {} },
            "schemaString": serde_json::to_string(&kernel)?,
            "partitionColumns": options.partition_by,
            "configuration": {},
            "createdTime": chrono::Utc::now().timestamp_millis(),
        });
        let protocol = json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
        let mut definition = Definition { metadata, protocol };
        definition.apply(&Alter::SetProperties(options.properties.iter().cloned().collect()))?;
        definition.apply(&Alter::SetComment(options.comment.clone()))?;
        for (column, comment) in &options.column_comments {
            let (column, comment) = (column.clone(), comment.clone());
            definition.apply(&Alter::SetColumnComment { column, comment })?;
        }
        for (column, text) in &options.generated {
            let text = rules::generation(column, text, &columns, &options.generated)?;
            definition.note_field(column, features::GENERATED, &text)?;
        }
        for (name, expression) in &options.constraints {
            rules::demand_evaluable(name, expression, &columns)?;
            let (name, expression) = (name.clone(), expression.clone());
            definition.apply(&Alter::AddConstraint { name, expression })?;
        }
        definition.demand_all()?;
        Ok(Self(definition))
    }

    pub(super) fn read(text: &str) -> Result<Self> {
        let lines = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let part = |key: &str| {
            let line = lines.iter().find_map(|line| line.get(key)).cloned();
            line.ok_or_else(|| Error::internal(format!("the draft of a table without `{key}`")))
        };
        Ok(Self(Definition { metadata: part("metaData")?, protocol: part("protocol")? }))
    }

    /// The entry of a log that has nothing else.
    fn text(&self) -> String {
        let Definition { metadata, protocol } = &self.0;
        format!("{}\n{}", json!({ "protocol": protocol }), json!({ "metaData": metadata }))
    }

    /// The table as if it were there and empty.
    pub(super) async fn loaded(&self) -> Result<Arc<Loaded>> {
        // Where it will be there may be no folder yet, without which the kernel opens no table of a file system.
        let nowhere = Url::parse("memory:///table").map_err(|error| Error::internal(error.to_string()))?;
        let table = Table::over(Arc::new(InMemory::new()), &nowhere)?;
        table.log_store.object_store(None).put(&commit_path(0), self.text().into()).await?;
        table.demand().await
    }

    /// For writers and for who commits.
    pub(super) async fn finish(&self) -> Result<TableDraft> {
        let loaded = self.loaded().await?;
        let have = loaded.schema();
        features::demand_writable(loaded.snapshot(), &have)?;
        Rules::of(loaded.snapshot(), &have)?;
        let generated = features::generated_columns(&have);
        let columns = Columns::of(&loaded)?.schema;
        let given = columns.fields().iter().filter(|field| !generated.contains_key(field.name())).cloned();
        let fillable = Arc::new(Schema::new(given.collect::<Vec<_>>()));
        Ok(TableDraft { definition: self.text(), fillable })
    }

    /// What makes a new table of it.
    fn actions(&self) -> Result<Vec<Action>> {
        Ok(vec![
            Action::Protocol(serde_json::from_value(self.0.protocol.clone())?),
            Action::Metadata(serde_json::from_value(self.0.metadata.clone())?),
        ])
    }

    /// What makes it of the table that is there. The protocol is one for all versions, so it never demands less
    /// than before.
    pub(super) fn actions_over(&self, snapshot: &EagerSnapshot) -> Result<Vec<Action>> {
        let before = serde_json::to_value(snapshot.protocol())?;
        let mut definition = Definition { metadata: self.0.metadata.clone(), protocol: before.clone() };
        definition.demand_all()?;
        definition.actions(&before)
    }
}

/// An empty table. Fails with `Code::AlreadyExists` when there is one, also when somebody else made it a moment ago.
pub(super) async fn create(table: &Arc<Table>, schema: &Schema, options: &TableOptions) -> Result<()> {
    let becomes = Some(Draft::new(schema, options)?.finish().await?);
    establish(table, Change { becomes, ..Change::new("CREATE TABLE") }).await
}

/// See [`tidemill_engine::LakeFormat::establish`].
pub(super) async fn establish(table: &Arc<Table>, change: Change) -> Result<()> {
    let Some(becomes) = &change.becomes else { return Err(Error::internal("a new table without a draft")) };
    let draft = Draft::read(&becomes.definition)?;
    if table.exists().await? {
        return Err(exists(table));
    }
    let loaded = draft.loaded().await?;
    let mut actions = vec![Action::CommitInfo(info(&change))];
    actions.extend(draft.actions()?);
    actions.extend(added(&change, &loaded)?);
    // Without a retry the commit cannot turn into one on top of a table that appeared meanwhile.
    let once = CommitProperties::default()
        .with_max_retries(0)
        .with_create_checkpoint(false)
        .with_cleanup_expired_logs(Some(false));
    // The entry says itself what it is.
    let kind = DeltaOperation::Write { mode: SaveMode::ErrorIfExists, partition_by: None, predicate: None };
    table.forget();
    let put = CommitBuilder::from(once).with_actions(actions).build(None, table.log_store.clone(), kind);
    let error = match put.await {
        Ok(done) => {
            written::note(&table.url);
            table.remember(Loaded::new(done.snapshot));
            return Ok(());
        }
        Err(error) => from_delta(error, &table.url),
    };
    // A put that failed may have landed all the same: then the first version is the draft's.
    let id = loaded.snapshot().metadata().id();
    let first = entry(table, 0).await.unwrap_or_default();
    let ours = |action: &Action| matches!(action, Action::Metadata(metadata) if metadata.id() == id);
    if first.iter().any(ours) {
        written::note(&table.url);
        return Ok(());
    }
    Err(if error.code == Code::Conflict { exists(table) } else { error })
}

fn exists(table: &Table) -> Error {
    Error::new(Code::AlreadyExists, format!("there is a Delta table at {}", table.url))
        .hint("drop it, or choose another name or location")
}

fn info(change: &Change) -> CommitInfo {
    let texts = |map: &BTreeMap<String, String>| -> HashMap<String, Value> {
        map.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect()
    };
    // Spark has numbers as text here.
    let metrics = change.metrics.iter().map(|(key, value)| (key.clone(), Value::from(value.to_string())));
    CommitInfo {
        timestamp: Some(chrono::Utc::now().timestamp_millis()),
        operation: Some(change.operation.clone()),
        operation_parameters: Some(texts(&change.parameters)),
        is_blind_append: Some(true),
        engine_info: Some(format!("Tidemill/{}", env!("CARGO_PKG_VERSION"))),
        info: HashMap::from([("operationMetrics".to_owned(), metrics.collect::<Value>())]),
        ..CommitInfo::default()
    }
}

fn check_partitioning(schema: &Schema, partition_by: &[String]) -> Result<()> {
    for name in partition_by {
        let Ok(field) = schema.field_with_name(name) else {
            let columns = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::new(Code::UnknownColumn, format!("no column `{name}` to partition by"))
                .suggest(name, columns));
        };
        if field.data_type().is_nested() || field.data_type() == &DataType::Binary {
            let message = format!("cannot partition by `{name}`, a column of type {}", field.data_type());
            return Err(
                Error::new(Code::Unsupported, message).hint("partition by text, numbers, dates or times")
            );
        }
    }
    if !partition_by.is_empty() && partition_by.len() >= schema.fields().len() {
        return Err(Error::new(Code::InvalidStatement, "all columns are partition columns")
            .hint("leave at least one column for the files"));
    }
    Ok(())
}
