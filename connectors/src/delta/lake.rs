//! Delta as the lake's table format: opening and creating tables.

use super::comment;
use super::create::{self, Draft};
use super::snapshot::DeltaSnapshot;
use super::table::Table;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{Error, Result};
use tidemill_engine::{
    Change, LakeFormat, LakeSnapshot, Maintenance, TableDraft, TableNotes, TableOptions, TableVersion,
};
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

    async fn draft(&self, _: &Url, schema: SchemaRef, options: &TableOptions) -> Result<TableDraft> {
        Draft::new(&schema, options)?.finish().await
    }

    async fn establish(&self, location: &Url, change: Change) -> Result<()> {
        create::establish(&Table::at(location, &self.config)?, change).await
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
