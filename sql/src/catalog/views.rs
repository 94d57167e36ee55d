//! Views are kept as text and planned when they are used, so they follow their tables.

use super::provider::Catalog;
use crate::functions::{RewriteFor, rewrite_windows};
use crate::statement::ViewDef;
use crate::{CATALOG, TableName};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use std::collections::BTreeSet;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// The tables and views that a view reads directly.
fn reads(view: &ViewDef) -> Result<Vec<TableName>> {
    let mut query = view.parse_query()?;
    rewrite_windows(&mut query, RewriteFor::Batch)?;
    let statement = DfStatement::Statement(Box::new(SqlStatement::Query(query)));
    let (references, _) = resolve_table_references(&statement, true).map_err(from_datafusion)?;
    let resolved = references.into_iter().map(|name| name.resolve(CATALOG, &view.default_schema));
    Ok(resolved.map(|name| TableName::new(name.schema.as_ref(), name.table.as_ref())).collect())
}

/// Refuses a view that reads itself, directly or by way of others.
pub(super) fn check_acyclic(catalog: &Catalog, view: &ViewDef) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut open = reads(view)?;
    while let Some(name) = open.pop() {
        if name == view.name {
            let message = format!("the view `{}` would read itself", view.name);
            return Err(Error::new(Code::InvalidStatement, message));
        }
        if let Some(next) = catalog.view(&name)
            && seen.insert(name)
        {
            open.extend(reads(&next)?);
        }
    }
    Ok(())
}
