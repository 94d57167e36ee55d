//! Comments of tables and columns, where Spark and delta-rs keep them: in the table's metadata, with all else that a
//! table says of itself.

use super::alter::CONSTRAINT;
use super::error::from_delta;
use super::features;
use super::table::{Loaded, Table};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::MetadataValue;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::operations::update_table_metadata::TableMetadataUpdate;
use std::collections::{BTreeMap, HashMap};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::TableNotes;

/// The key of a column's comment in the metadata of its field.
pub(super) const COMMENT: &str = "comment";

pub(super) fn notes(loaded: &Loaded) -> TableNotes {
    let schema = loaded.schema();
    let commented = |field: &arrow::datatypes::FieldRef| {
        let comment = field.metadata().get(COMMENT).filter(|comment| !comment.is_empty())?;
        Some((field.name().clone(), comment.clone()))
    };
    let metadata = loaded.snapshot().metadata();
    let description = metadata.description();
    let (mut constraints, mut properties) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in metadata.configuration() {
        match key.strip_prefix(CONSTRAINT) {
            Some(name) => constraints.insert(name.to_owned(), value.clone()),
            None => properties.insert(key.clone(), value.clone()),
        };
    }
    TableNotes {
        partition_by: loaded.partition_columns(),
        comment: description.filter(|comment| !comment.is_empty()).map(str::to_owned),
        column_comments: schema.fields().iter().filter_map(commented).collect(),
        generated: features::generated_columns(&schema),
        constraints,
        properties,
    }
}

/// One commit of the table's metadata.
pub(super) async fn set(table: &Table, column: Option<&str>, text: &str) -> Result<()> {
    let loaded = table.demand().await?;
    let target = DeltaTable::new(table.log_store.clone());
    let commit = CommitProperties::default().with_create_checkpoint(false);
    let done = match column {
        Some(column) => {
            let schema = loaded.schema();
            if schema.field_with_name(column).is_err() {
                let columns = schema.fields().iter().map(|field| field.name().as_str());
                return Err(
                    Error::new(Code::UnknownColumn, format!("no column `{column}`")).suggest(column, columns)
                );
            }
            let metadata = HashMap::from([(COMMENT.to_owned(), MetadataValue::String(text.to_owned()))]);
            let update = target.update_field_metadata().with_field_name(column).with_metadata(metadata);
            update.with_commit_properties(commit).await
        }
        None => {
            let update = TableMetadataUpdate { name: None, description: Some(text.to_owned()) };
            target.update_table_metadata().with_update(update).with_commit_properties(commit).await
        }
    };
    table.forget();
    done.map(|_| ()).map_err(|error| from_delta(error, &table.url))
}
