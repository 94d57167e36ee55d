//! One schema of tables and views.

use super::provider::Catalog;
use crate::TableName;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::TableType;
use std::sync::Arc;
use tidemill_engine::to_datafusion;

#[derive(Debug)]
pub(super) struct LakeSchema {
    pub(super) catalog: Catalog,
    pub(super) name: String,
}

impl LakeSchema {
    fn full(&self, name: &str) -> TableName {
        TableName::new(&self.name, name)
    }
}

#[async_trait]
impl SchemaProvider for LakeSchema {
    fn table_names(&self) -> Vec<String> {
        self.catalog.names(&self.name)
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        self.catalog.open(&self.full(name)).await.map_err(to_datafusion)
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        let name = self.full(name);
        if self.catalog.view(&name).is_some() {
            return Ok(Some(TableType::View));
        }
        Ok(self.catalog.table(&name).map(|_| TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        let name = self.full(name);
        self.catalog.table(&name).is_some() || self.catalog.view(&name).is_some()
    }
}
