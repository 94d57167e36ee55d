//! The table format of the lake, as the engine sees it: opened for reading as a `TableProvider`, created with
//! a schema. Appending goes through [`tidemill_core::Sink`], every other change through [`LakeSnapshot`].

use crate::{Change, LakeSnapshot, Maintenance};
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
    /// Comments by column.
    pub column_comments: BTreeMap<String, String>,
    /// Columns that writers compute, with their expressions as SQL text.
    pub generated: BTreeMap<String, String>,
    /// Conditions that no row may fail, as SQL text by name.
    pub constraints: BTreeMap<String, String>,
}

/// What a table will be that is not there yet, so that rows can be written before the one commit that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDraft {
    /// The format's own words. The format's sink writes rows for the draft when its option `definition` has them.
    pub definition: String,
    /// The columns that a query gives values; writers compute the others.
    pub fillable: SchemaRef,
}

/// What a table says of itself besides its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableNotes {
    pub partition_by: Vec<String>,
    pub comment: Option<String>,
    /// Comments by column.
    pub column_comments: BTreeMap<String, String>,
    /// Columns that writers compute, with their expressions as SQL text.
    pub generated: BTreeMap<String, String>,
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

    /// Says what a table of these columns would be. Fails where nobody could write to it.
    async fn draft(&self, location: &Url, _: SchemaRef, _: &TableOptions) -> Result<TableDraft> {
        Err(Error::new(Code::Unsupported, format!("the table format at {location} makes no tables"))
            .hint("CREATE EXTERNAL TABLE reads what is there"))
    }

    /// Makes the table that `change.becomes`, with the rows that it adds, in one commit.
    ///
    /// # Errors
    /// `Code::AlreadyExists` when there is a table, also when somebody else made it a moment ago.
    async fn establish(&self, location: &Url, _: Change) -> Result<()> {
        Err(Error::internal(format!("a draft for {location} of a format that makes none")))
    }

    /// An empty table. Fails with `Code::AlreadyExists` when there is one.
    async fn create(&self, location: &Url, schema: SchemaRef, options: &TableOptions) -> Result<()> {
        let becomes = Some(self.draft(location, schema, options).await?);
        self.establish(location, Change { becomes, ..Change::new("CREATE TABLE") }).await
    }

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
