//! Delta as the lake's table format: opening and creating tables.

use super::error::from_delta;
use super::snapshot::DeltaSnapshot;
use super::table::Table;
use super::{comment, features, schema};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::kernel::{StructField, StructType};
use deltalake_core::operations::create::CreateBuilder;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{LakeFormat, LakeSnapshot, Maintenance, TableNotes, TableOptions, TableVersion};
use url::Url;

/// Tables in Delta's format, wherever the configuration reaches.
#[derive(Clone, Debug)]
pub struct DeltaLake {
    config: Config,
}

impl DeltaLake {
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }
}

#[async_trait]
impl LakeFormat for DeltaLake {
    async fn open(&self, location: &Url) -> Result<Arc<dyn TableProvider>> {
        let table = Table::at(location, &self.config)?;
        Ok(table.demand().await?.provider(&table)?)
    }

    async fn snapshot(&self, location: &Url) -> Result<Arc<dyn LakeSnapshot>> {
        let table = Table::at(location, &self.config)?;
        let loaded = table.demand().await?;
        Ok(Arc::new(DeltaSnapshot::new(table, loaded)))
    }

    async fn open_at(&self, location: &Url, version: TableVersion) -> Result<Arc<dyn TableProvider>> {
        let table = Table::at(location, &self.config)?;
        Ok(table.version(version).await?.provider(&table)?)
    }

    async fn changes(
        &self,
        location: &Url,
        from: TableVersion,
        to: Option<TableVersion>,
    ) -> Result<Arc<dyn TableProvider>> {
        let table = Table::at(location, &self.config)?;
        Ok(Arc::new(table.changes(from, to).await?))
    }

    async fn exists(&self, location: &Url) -> Result<bool> {
        Table::at(location, &self.config)?.exists().await
    }

    async fn create(&self, location: &Url, schema: SchemaRef, options: &TableOptions) -> Result<()> {
        let table = Table::at(location, &self.config)?;
        create(&table, &schema, options).await
    }

    async fn notes(&self, location: &Url) -> Result<TableNotes> {
        let table = Table::at(location, &self.config)?;
        let loaded = table.demand().await?;
        Ok(comment::notes(&loaded))
    }

    async fn comment(&self, location: &Url, column: Option<&str>, text: &str) -> Result<()> {
        let table = Table::at(location, &self.config)?;
        comment::set(&table, column, text).await
    }

    /// The log goes first: without it nobody takes the remaining files for a table.
    async fn remove(&self, location: &Url) -> Result<()> {
        let table = Table::at(location, &self.config)?;
        let store = table.log_store.object_store(None);
        for folder in [Some(Path::from("_delta_log")), None] {
            let files = store.list(folder.as_ref()).map_ok(|meta| meta.location).boxed();
            let deleted: std::result::Result<Vec<Path>, _> = store.delete_stream(files).try_collect().await;
            deleted.map_err(|error| Error::from(error).context(format!("Delta table {location}")))?;
        }
        table.forget();
        Ok(())
    }

    fn maintenance(&self) -> Result<&dyn Maintenance> {
        Ok(self)
    }
}

/// Fails with `Code::AlreadyExists` when there is a table, also when somebody else made it a moment ago.
pub(super) async fn create(table: &Table, schema: &Schema, options: &TableOptions) -> Result<()> {
    let exists = || {
        Error::new(Code::AlreadyExists, format!("there is a Delta table at {}", table.url))
            .hint("drop it, or choose another name or location")
    };
    let schema = schema::lake_schema(schema)?;
    check_partitioning(&schema, &options.partition_by)?;
    features::refuse_properties(
        options.properties.iter().map(|(key, value)| (key.as_str(), value.as_str())),
    )?;
    if table.exists().await? {
        return Err(exists());
    }
    let columns: StructType = (&schema).try_into_kernel()?;
    // Without a retry the commit cannot turn into one on top of a table that appeared meanwhile.
    let once = CommitProperties::default().with_max_retries(0).with_create_checkpoint(false);
    let mut builder = CreateBuilder::new()
        .with_log_store(table.log_store.clone())
        .with_columns(columns.fields().cloned().collect::<Vec<StructField>>())
        .with_partition_columns(options.partition_by.clone())
        .with_configuration(options.properties.iter().map(|(key, value)| (key, Some(value))))
        .with_raise_if_key_not_exists(options.properties.iter().all(|(key, _)| key.starts_with("delta.")))
        .with_commit_properties(once);
    if let Some(comment) = &options.comment {
        builder = builder.with_comment(comment);
    }
    table.forget();
    match builder.await {
        Ok(_) => Ok(()),
        Err(error) => {
            let error = from_delta(error, &table.url);
            Err(if error.code == Code::Conflict { exists() } else { error })
        }
    }
}

pub(super) fn check_partitioning(schema: &Schema, partition_by: &[String]) -> Result<()> {
    for name in partition_by {
        let Ok(field) = schema.field_with_name(name) else {
            let columns = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::new(Code::UnknownColumn, format!("no column `{name}` to partition by"))
                .suggest(name, columns));
        };
        if field.data_type().is_nested() || field.data_type() == &arrow::datatypes::DataType::Binary {
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
