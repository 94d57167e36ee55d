//! A session in which a table stays as it was when it was first asked for: for statements that plan several queries,
//! which must agree on what they read. Files that are no Delta table are listed anew by each query all the same.

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::TableType;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// The session, with tables that are opened once.
pub fn pinned(state: &SessionState) -> SessionState {
    let list = Pinned { inner: state.catalog_list().clone(), opened: Arc::default(), place: Vec::new() };
    SessionStateBuilder::new_from_existing(state.clone()).with_catalog_list(Arc::new(list)).build()
}

/// By catalog, schema and table; `None` where there is none.
type Opened = Arc<Mutex<HashMap<Vec<String>, Option<Arc<dyn TableProvider>>>>>;

/// A list of catalogs, a catalog or a schema, and where it is.
#[derive(Debug)]
struct Pinned<T> {
    inner: T,
    opened: Opened,
    place: Vec<String>,
}

impl<T> Pinned<T> {
    fn below<U>(&self, name: &str, inner: U) -> Pinned<U> {
        Pinned { inner, opened: Arc::clone(&self.opened), place: self.path(name) }
    }

    fn path(&self, name: &str) -> Vec<String> {
        self.place.iter().cloned().chain([name.to_owned()]).collect()
    }
}

impl CatalogProviderList for Pinned<Arc<dyn CatalogProviderList>> {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        self.inner.catalog_names()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        self.inner.catalog(name).map(|catalog| Arc::new(self.below(name, catalog)) as _)
    }
}

impl CatalogProvider for Pinned<Arc<dyn CatalogProvider>> {
    fn schema_names(&self) -> Vec<String> {
        self.inner.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.inner.schema(name).map(|schema| Arc::new(self.below(name, schema)) as _)
    }
}

#[async_trait]
impl SchemaProvider for Pinned<Arc<dyn SchemaProvider>> {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let path = self.path(name);
        if let Some(opened) = self.opened.lock().get(&path) {
            return Ok(opened.clone());
        }
        let table = self.inner.table(name).await?;
        // Whoever was first decides for all.
        Ok(self.opened.lock().entry(path).or_insert(table).clone())
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        self.inner.table_type(name).await
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dialect::parse_query, plan_query};
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn a_table_is_opened_once() {
        let context = SessionContext::new();
        let make = |sql: &'static str| async { context.sql(sql).await.unwrap().collect().await.unwrap() };
        make("CREATE TABLE s (a INT) AS VALUES (1)").await;
        let state = pinned(&context.state());
        let columns = |state: SessionState| async move {
            let plan = plan_query(&state, parse_query("SELECT * FROM s").unwrap()).await.unwrap();
            plan.schema().fields().len()
        };
        assert_eq!(columns(state.clone()).await, 1);
        make("CREATE OR REPLACE TABLE s (a INT, b INT) AS VALUES (1, 2)").await;
        assert_eq!((columns(state).await, columns(context.state()).await), (1, 2));
    }
}
