//! The server's catalogs, as DataFusion asks for them.
//!
//! Names are listed from a copy, because DataFusion asks for them without waiting; the columns of a table are
//! asked for each time that it is opened.

use crate::exec::RemoteExec;
use crate::flight::{Flight, decode_schema};
use crate::producer::to_substrait;
use arrow::array::{Array, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTables};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Catalog, schema, tables.
type Names = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

pub(crate) struct RemoteCatalogs {
    flight: Flight,
    names: Arc<RwLock<Names>>,
}

impl fmt::Debug for RemoteCatalogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteCatalogs").field(&*self.names.read()).finish()
    }
}

impl RemoteCatalogs {
    pub(crate) async fn fetch(flight: Flight) -> Result<Self> {
        let catalogs = Self { flight, names: Arc::default() };
        catalogs.refresh().await?;
        Ok(catalogs)
    }

    pub(crate) async fn refresh(&self) -> Result<()> {
        let mut names = Names::new();
        for batch in self.flight.collect(CommandGetCatalogs {}).await? {
            names.extend(strings(&batch, "catalog_name")?.into_iter().map(|name| (name, BTreeMap::new())));
        }
        for batch in self.flight.collect(CommandGetDbSchemas::default()).await? {
            let catalogs = strings(&batch, "catalog_name")?;
            for (catalog, schema) in catalogs.into_iter().zip(strings(&batch, "db_schema_name")?) {
                names.entry(catalog).or_default().entry(schema).or_default();
            }
        }
        for batch in self.flight.collect(CommandGetTables::default()).await? {
            let catalogs = strings(&batch, "catalog_name")?.into_iter();
            let schemas = strings(&batch, "db_schema_name")?;
            let tables = strings(&batch, "table_name")?;
            for ((catalog, schema), table) in catalogs.zip(schemas).zip(tables) {
                names.entry(catalog).or_default().entry(schema).or_default().insert(table);
            }
        }
        *self.names.write() = names;
        Ok(())
    }

    /// The catalog of names without one.
    pub(crate) fn first(&self) -> String {
        self.names.read().keys().next().cloned().unwrap_or_default()
    }
}

fn strings(batch: &RecordBatch, column: &str) -> Result<Vec<String>> {
    let found = batch.column_by_name(column).and_then(|array| array.as_any().downcast_ref::<StringArray>());
    let array =
        found.ok_or_else(|| DataFusionError::Internal(format!("Flight SQL metadata without `{column}`")))?;
    Ok(array.iter().map(|value| value.unwrap_or_default().to_owned()).collect())
}

impl CatalogProviderList for RemoteCatalogs {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        self.names.read().keys().cloned().collect()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        self.names.read().contains_key(name).then(|| {
            let (flight, names) = (self.flight.clone(), Arc::clone(&self.names));
            Arc::new(RemoteCatalog { flight, names, name: name.to_owned() }) as _
        })
    }
}

struct RemoteCatalog {
    flight: Flight,
    names: Arc<RwLock<Names>>,
    name: String,
}

impl fmt::Debug for RemoteCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteCatalog").field(&self.name).finish()
    }
}

impl CatalogProvider for RemoteCatalog {
    fn schema_names(&self) -> Vec<String> {
        let names = self.names.read();
        names.get(&self.name).map(|schemas| schemas.keys().cloned().collect()).unwrap_or_default()
    }

    /// One of any name: it may have been created since the names were listed.
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let (flight, names) = (self.flight.clone(), Arc::clone(&self.names));
        Some(Arc::new(RemoteSchema { flight, names, catalog: self.name.clone(), name: name.to_owned() }))
    }
}

struct RemoteSchema {
    flight: Flight,
    names: Arc<RwLock<Names>>,
    catalog: String,
    name: String,
}

impl fmt::Debug for RemoteSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteSchema").field(&self.catalog).field(&self.name).finish()
    }
}

#[async_trait]
impl SchemaProvider for RemoteSchema {
    fn table_names(&self) -> Vec<String> {
        let names = self.names.read();
        let tables = names.get(&self.catalog).and_then(|schemas| schemas.get(&self.name));
        tables.map(|tables| tables.iter().cloned().collect()).unwrap_or_default()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let command = CommandGetTables {
            catalog: Some(self.catalog.clone()),
            db_schema_filter_pattern: Some(literal(&self.name)),
            table_name_filter_pattern: Some(literal(name)),
            table_types: Vec::new(),
            include_schema: true,
        };
        for batch in self.flight.collect(command).await? {
            let Some(row) = strings(&batch, "table_name")?.iter().position(|found| found == name) else {
                continue;
            };
            let encoded = batch.column_by_name("table_schema");
            let encoded = encoded.and_then(|array| array.as_any().downcast_ref::<BinaryArray>());
            let Some(encoded) = encoded else { continue };
            let schema = Arc::new(decode_schema(encoded.value(row))?);
            if schema.fields().is_empty() {
                return Err(DataFusionError::Plan(format!(
                    "the server has `{name}` but cannot open it; a SELECT by Client::sql says why"
                )));
            }
            let view = strings(&batch, "table_type")?.get(row).is_some_and(|kind| kind == "VIEW");
            let full = TableReference::full(self.catalog.as_str(), self.name.as_str(), name);
            return Ok(Some(Arc::new(RemoteTable { flight: self.flight.clone(), name: full, schema, view })));
        }
        Ok(None)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|known| known == name)
    }
}

/// A `LIKE` pattern for exactly this name.
fn literal(name: &str) -> String {
    name.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// A table of the server. In a session of this crate whole plans over it are sent; in any other session it is
/// read by itself, with the columns that are asked for.
pub(crate) struct RemoteTable {
    flight: Flight,
    pub(crate) name: TableReference,
    schema: SchemaRef,
    view: bool,
}

impl fmt::Debug for RemoteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteTable").field(&self.name).finish()
    }
}

#[async_trait]
impl TableProvider for RemoteTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        if self.view { TableType::View } else { TableType::Base }
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = Self {
            flight: self.flight.clone(),
            name: self.name.clone(),
            schema: Arc::clone(&self.schema),
            view: self.view,
        };
        let source = provider_as_source(Arc::new(table));
        let plan = LogicalPlanBuilder::scan(self.name.clone(), source, projection.cloned())?;
        let plan = if limit.is_some() { plan.limit(0, limit)? } else { plan }.build()?;
        Ok(Arc::new(RemoteExec::new(self.flight.clone(), to_substrait(&plan)?, plan.schema().inner())))
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn names_are_no_patterns() {
        assert_eq!(literal("a_b%c"), "a\\_b\\%c");
    }
}
