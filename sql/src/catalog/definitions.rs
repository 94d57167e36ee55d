//! The definitions in memory, as the journal has them.

use crate::statement::{FunctionDef, TableDef, ViewDef};
use crate::{DEFAULT_SCHEMA, SYSTEM_SCHEMA, TableName};
use std::collections::{BTreeMap, BTreeSet};

/// One change of the definitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    PutTable(TableDef),
    DropTable(TableName),
    PutView(ViewDef),
    DropView(TableName),
    PutSchema(String),
    DropSchema(String),
    PutFunction(FunctionDef),
    DropFunction(String),
    /// Sources are no tables; their names are known so that reading one can be refused with a reason.
    PutSource(String),
    DropSource(String),
}

#[derive(Debug, Default)]
pub(super) struct Definitions {
    tables: BTreeMap<TableName, TableDef>,
    views: BTreeMap<TableName, ViewDef>,
    schemas: BTreeSet<String>,
    sources: BTreeSet<String>,
}

impl Definitions {
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::PutTable(table) => {
                self.tables.insert(table.name.clone(), table);
            }
            Change::DropTable(name) => {
                self.tables.remove(&name);
            }
            Change::PutView(view) => {
                self.views.insert(view.name.clone(), view);
            }
            Change::DropView(name) => {
                self.views.remove(&name);
            }
            Change::PutSchema(name) => {
                self.schemas.insert(name);
            }
            Change::DropSchema(name) => {
                self.schemas.remove(&name);
            }
            // Sessions share these, see `Catalog::apply`.
            Change::PutFunction(_) | Change::DropFunction(_) => {}
            Change::PutSource(name) => {
                self.sources.insert(name);
            }
            Change::DropSource(name) => {
                self.sources.remove(&name);
            }
        }
    }

    pub(super) fn table(&self, name: &TableName) -> Option<&TableDef> {
        self.tables.get(name)
    }

    pub(super) fn view(&self, name: &TableName) -> Option<&ViewDef> {
        self.views.get(name)
    }

    pub(super) fn is_source(&self, name: &str) -> bool {
        self.sources.contains(name)
    }

    /// Names of tables and views in a schema.
    pub(super) fn names(&self, schema: &str) -> Vec<String> {
        let all = self.tables.keys().chain(self.views.keys());
        let names: BTreeSet<&String> =
            all.filter(|name| name.schema == schema).map(|name| &name.name).collect();
        names.into_iter().cloned().collect()
    }

    /// The default schema, declared ones, and those of tables and views; not the system's.
    pub(super) fn schemas(&self) -> BTreeSet<String> {
        let used = self.tables.keys().chain(self.views.keys()).map(|name| &name.schema);
        let mut schemas: BTreeSet<String> = self.schemas.iter().chain(used).cloned().collect();
        schemas.insert(DEFAULT_SCHEMA.to_owned());
        schemas.remove(SYSTEM_SCHEMA);
        schemas
    }
}
