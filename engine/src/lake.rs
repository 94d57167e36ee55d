//! The table format of the lake, as the engine sees it: opened for reading as a `TableProvider`, created with
//! a schema. Appending goes through [`tidemill_core::Sink`], every other change through [`LakeSnapshot`].

use crate::{LakeSnapshot, Maintenance};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use datafusion::catalog::TableProvider;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use url::Url;

/// A moment in a table's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableVersion {
    /// The commit of this number.
    Number(u64),
    /// The newest commit that is not later.
    Time(DateTime<Utc>),
}

/// How a table is created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    pub partition_by: Vec<String>,
    pub comment: Option<String>,
    /// Format-specific table properties.
    pub properties: Vec<(String, String)>,
}

/// What a table says of itself besides its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableNotes {
    pub partition_by: Vec<String>,
    pub comment: Option<String>,
    /// Comments by column.
    pub column_comments: BTreeMap<String, String>,
    /// Conditions that no row may fail, as SQL text by name.
    pub constraints: BTreeMap<String, String>,
    /// Properties of the format and others, without what is a constraint.
    pub properties: BTreeMap<String, String>,
}

#[async_trait]
pub trait LakeFormat: Send + Sync + std::fmt::Debug {
    /// The newest snapshot. Its `scan` gives plans of plain file scans, which every engine can send.
    async fn open(&self, location: &Url) -> Result<Arc<dyn TableProvider>>;

    /// The newest snapshot, to be changed.
    async fn snapshot(&self, location: &Url) -> Result<Arc<dyn LakeSnapshot>> {
        Err(Error::new(Code::Unsupported, format!("the table format at {location} cannot be changed"))
            .hint("INSERT appends to it"))
    }

    /// An older snapshot. Fails with `Code::NotFound`, and says which there are, when it cannot be had any more.
    async fn open_at(&self, location: &Url, version: TableVersion) -> Result<Arc<dyn TableProvider>>;

    /// What changed in the table from one version to another, both included, to the newest by default: the table's
    /// columns, `_change_type`, `_commit_version` and `_commit_timestamp`.
    async fn changes(
        &self,
        location: &Url,
        from: TableVersion,
        to: Option<TableVersion>,
    ) -> Result<Arc<dyn TableProvider>>;

    async fn exists(&self, location: &Url) -> Result<bool>;

    /// Fails with `Code::AlreadyExists` when there is a table.
    async fn create(&self, location: &Url, schema: SchemaRef, options: &TableOptions) -> Result<()>;

    async fn notes(&self, location: &Url) -> Result<TableNotes>;

    /// Sets the comment of a table, or of one of its columns; an empty one is none.
    async fn comment(&self, location: &Url, column: Option<&str>, text: &str) -> Result<()>;

    /// Deletes a table with everything at its location, so that another one can be created there. Does nothing
    /// where there is none.
    async fn remove(&self, location: &Url) -> Result<()>;

    /// What keeps this format's tables in order.
    fn maintenance(&self) -> Result<&dyn Maintenance> {
        Err(Error::new(Code::Unsupported, "tables of this format are not maintained here"))
    }
}
