//! The table that is changed, as queries see it.

use crate::name::quote;
use arrow::datatypes::{DataType, Schema};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemorySchemaProvider, TableProvider,
};
use datafusion::common::TableReference;
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// A catalog that no user has.
const CATALOG: &str = "__change";

/// What queries over the target need to know of it.
#[derive(Clone, Debug)]
pub struct Target {
    /// By which the statement calls it.
    pub alias: String,
    pub columns: Vec<TargetColumn>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TargetColumn {
    pub name: String,
    pub data_type: DataType,
    /// Computed by the writer, from the other columns.
    pub generated: bool,
    /// Not in the table yet: the change adds it.
    pub added: bool,
}

impl Target {
    pub const SQL: &'static str = "__change.__change.target";

    /// Where [`with_rows`] puts rows.
    pub const ROWS_SQL: &'static str = "__change.__change.rows";

    pub fn new(alias: &str, schema: &Schema, generated: &BTreeMap<String, String>) -> Self {
        let column = |field: &Arc<arrow::datatypes::Field>| TargetColumn {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            generated: generated.contains_key(field.name()),
            added: false,
        };
        Self { alias: alias.to_owned(), columns: schema.fields().iter().map(column).collect() }
    }

    /// Columns that the change adds to the table: it writes them, and no row that is there has them.
    pub fn add(&mut self, columns: &Schema) {
        self.columns.extend(columns.fields().iter().map(|field| TargetColumn {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            generated: false,
            added: true,
        }));
    }

    /// `alias."column"`.
    pub(super) fn column(&self, name: &str) -> String {
        format!("{}.{}", quote(&self.alias), quote(name))
    }

    /// `… AS alias`, for FROM.
    pub(super) fn table(&self) -> String {
        format!("{} AS {}", Self::SQL, quote(&self.alias))
    }

    /// The columns that a query has to give.
    pub(super) fn written(&self) -> impl Iterator<Item = &TargetColumn> {
        self.columns.iter().filter(|column| !column.generated)
    }

    /// Finds a column of a SET or INSERT list.
    pub(super) fn find(&self, name: &str) -> Result<&TargetColumn> {
        let Some(column) = self.columns.iter().find(|column| column.name == name) else {
            let names = self.columns.iter().map(|column| column.name.as_str());
            let message = format!("the table has no column `{name}`");
            return Err(Error::new(Code::UnknownColumn, message).suggest(name, names));
        };
        if column.generated {
            let message = format!("`{name}` is a generated column");
            return Err(Error::new(Code::InvalidStatement, message)
                .hint("it follows from other columns; leave it out"));
        }
        Ok(column)
    }
}

impl TargetColumn {
    /// The expression as a value of this column.
    pub(super) fn cast(&self, expression: &str) -> String {
        match self.data_type.is_nested() {
            true => format!("({expression})"),
            false => {
                let data_type = self.data_type.to_string().replace('\'', "''");
                format!("arrow_cast(({expression}), '{data_type}')")
            }
        }
    }
}

/// Whether a scan is one of [`Target::SQL`].
pub fn is_target(table: &TableReference) -> bool {
    table.catalog() == Some(CATALOG)
}

/// The session with `table` under [`Target::SQL`].
pub fn with_target(state: &SessionState, table: Arc<dyn TableProvider>) -> Result<SessionState> {
    beside(state, "target", table)
}

/// The session with the rows of a plan under [`Target::ROWS_SQL`], beside the target that it has.
pub fn with_rows(state: &SessionState, plan: LogicalPlan) -> Result<SessionState> {
    beside(state, "rows", Arc::new(ViewTable::new(plan, None)))
}

fn beside(state: &SessionState, name: &str, table: Arc<dyn TableProvider>) -> Result<SessionState> {
    let known = state.catalog_list().catalog(CATALOG).and_then(|catalog| catalog.schema(CATALOG));
    let schema = match known {
        Some(schema) => schema,
        None => Arc::new(MemorySchemaProvider::new()),
    };
    schema.register_table(name.to_owned(), table).map_err(from_datafusion)?;
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(CATALOG, schema).map_err(from_datafusion)?;
    let list = Beside { inner: state.catalog_list().clone(), catalog: Arc::new(catalog) };
    Ok(SessionStateBuilder::new_from_existing(state.clone()).with_catalog_list(Arc::new(list)).build())
}

/// The catalogs that were there, and one more.
#[derive(Debug)]
struct Beside {
    inner: Arc<dyn CatalogProviderList>,
    catalog: Arc<dyn CatalogProvider>,
}

impl CatalogProviderList for Beside {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        self.inner.catalog_names()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        if name == CATALOG { Some(self.catalog.clone()) } else { self.inner.catalog(name) }
    }
}
