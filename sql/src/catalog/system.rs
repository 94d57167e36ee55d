//! System tables: small, made when they are scanned, by whoever knows their content.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;
use tidemill_core::{Error, Result};
use tidemill_engine::to_datafusion;

/// The content of the schema `tidemill`.
#[async_trait]
pub trait SystemTables: Send + Sync + std::fmt::Debug {
    fn names(&self) -> Vec<String>;

    /// `None` for a name that is not in [`Self::names`].
    fn schema(&self, name: &str) -> Option<SchemaRef>;

    /// All rows at this moment, in that schema.
    async fn batch(&self, name: &str) -> Result<RecordBatch>;
}

#[derive(Debug)]
pub(super) struct SystemSchema {
    pub(super) tables: Arc<dyn SystemTables>,
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.names()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let Some(schema) = self.tables.schema(name) else { return Ok(None) };
        let table = SystemTable { name: name.to_owned(), schema, tables: self.tables.clone() };
        Ok(Some(Arc::new(table)))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.schema(name).is_some()
    }
}

#[derive(Debug)]
struct SystemTable {
    name: String,
    schema: SchemaRef,
    tables: Arc<dyn SystemTables>,
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let batch = self.tables.batch(&self.name).await.map_err(to_datafusion)?;
        if batch.schema() != self.schema {
            let message = format!("system table `{}` gave another schema than it declares", self.name);
            return Err(to_datafusion(Error::internal(message)));
        }
        MemTable::try_new(self.schema.clone(), vec![vec![batch]])?
            .scan(state, projection, filters, limit)
            .await
    }
}
