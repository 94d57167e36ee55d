//! DataFusion's `information_schema` over a catalog in which a table may fail to open: it is left out of what
//! needs its columns, where DataFusion would refuse the whole answer.

use super::provider::Catalog;
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, SchemaProvider, TableFunction, TableProvider,
};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::TableType;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) const INFORMATION_SCHEMA: &str = "information_schema";

pub(super) fn information_schema(
    catalog: &Catalog,
    functions: HashMap<String, Arc<TableFunction>>,
) -> Arc<dyn SchemaProvider> {
    let lenient = Arc::new(Lenient(catalog.clone()));
    Arc::new(InformationSchemaProvider::new(lenient).with_table_functions(functions))
}

#[derive(Clone, Debug)]
struct Lenient(Catalog);

impl CatalogProviderList for Lenient {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        self.0.catalog_names()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        self.0.catalog(name).map(|_| Arc::new(self.clone()) as Arc<dyn CatalogProvider>)
    }
}

impl CatalogProvider for Lenient {
    fn schema_names(&self) -> Vec<String> {
        self.0.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let schema = self.0.schema(name)?;
        Some(Arc::new(LenientSchema(schema)))
    }
}

#[derive(Debug)]
struct LenientSchema(Arc<dyn SchemaProvider>);

#[async_trait]
impl SchemaProvider for LenientSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.0.table(name).await.unwrap_or_else(|error| {
            tracing::warn!(table = name, %error, "information_schema leaves out a table that does not open");
            None
        }))
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        self.0.table_type(name).await
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}
