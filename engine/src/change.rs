//! Changing a table of the lake: what was read, what goes, what comes, committed as one.
//!
//! ```text
//! LakeFormat::snapshot ─▶ LakeSnapshot ─┬─ files(filters)      which files may hold such rows
//!                                       ├─ table(some files)   a table to plan queries over, as any other
//!                                       │                      its rows ─▶ WriteExec ─▶ [Written]
//!                                       └─ commit(Change { removes, adds, reads, … }) ─▶ version
//! ```
//! A commit is made on top of whatever others committed meanwhile, unless that contradicts what was read here;
//! then it fails with `Code::Conflict`, and nothing has happened. UPDATE, DELETE, MERGE, overwrites, compaction
//! and ALTER TABLE are all changes of this kind.

use crate::TableDraft;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::{Result, Written};

/// A data file of a snapshot. Its number means nothing outside of that snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct LakeFile {
    pub number: usize,
    pub bytes: u64,
    /// `None` where the log does not say.
    pub rows: Option<u64>,
    /// In the order of [`LakeSnapshot::partition_by`].
    pub partition: Vec<ScalarValue>,
    /// Whether some of the rows in the file are deleted by a mark beside it.
    pub has_deleted_rows: bool,
}

/// Which of a table's rows a change depends on. Others may commit anything else meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub enum Reads {
    /// None: rows are only added.
    Nothing,
    /// Only the files that it removes, whatever is added beside them: compaction.
    Removed,
    /// Rows that pass all filters, over the table's columns.
    Matching(Vec<Expr>),
    Everything,
}

/// A change of what the table is, not of its rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Alter {
    /// Adds columns that may be NULL; rows that are there have NULL in them.
    AddColumns(SchemaRef),
    SetProperties(BTreeMap<String, String>),
    /// Properties that are not set are passed over if `if_exists`, and refused if not.
    UnsetProperties {
        keys: Vec<String>,
        if_exists: bool,
    },
    SetComment(Option<String>),
    /// A condition, as SQL text, that no row may fail. The caller has checked the rows that are there.
    AddConstraint {
        name: String,
        expression: String,
    },
    DropConstraint {
        name: String,
        if_exists: bool,
    },
    SetNullable {
        column: String,
        nullable: bool,
    },
    /// A wider type, for a table that allows it; files that are there keep theirs.
    SetType {
        column: String,
        data_type: DataType,
    },
    /// An empty comment is none.
    SetColumnComment {
        column: String,
        comment: String,
    },
}

/// One commit.
#[derive(Clone, Debug)]
pub struct Change {
    /// What the history calls it: `DELETE`, `MERGE`, `OPTIMIZE` ….
    pub operation: String,
    /// For the history only.
    pub parameters: BTreeMap<String, String>,
    /// For the history only: `numUpdatedRows` and the like.
    pub metrics: BTreeMap<String, u64>,
    /// Numbers of files of the snapshot.
    pub removes: Vec<usize>,
    /// What writers of the table's sink wrote.
    pub adds: Vec<Written>,
    pub reads: Reads,
    /// False when the same rows are only laid out anew. Streams that read the table pass over such a commit.
    pub data_change: bool,
    pub alter: Vec<Alter>,
    /// The table becomes another one at the same place, with the history of the one that was there: writers that
    /// began before do not commit to it. `removes` should then be all files, and `alter` is not looked at.
    pub becomes: Option<TableDraft>,
    /// Makes the commit idempotent: once `(application, number)` is in the log, a second one does nothing.
    pub transaction: Option<(String, u64)>,
}

impl Change {
    /// Nothing yet, of rows or files; `reads` everything, which is always safe.
    pub fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            parameters: BTreeMap::new(),
            metrics: BTreeMap::new(),
            removes: Vec::new(),
            adds: Vec::new(),
            reads: Reads::Everything,
            data_change: true,
            alter: Vec::new(),
            becomes: None,
            transaction: None,
        }
    }
}

/// A table as it was at one version.
#[async_trait]
pub trait LakeSnapshot: Send + Sync + std::fmt::Debug {
    fn version(&self) -> u64;

    /// The table's columns, with what the format notes about them in their metadata.
    fn schema(&self) -> SchemaRef;

    /// The schema of [`Self::table`], which no file is looked at for.
    fn row_schema(&self) -> Result<SchemaRef>;

    fn partition_by(&self) -> Vec<String>;

    fn properties(&self) -> BTreeMap<String, String>;

    /// Columns that the writer computes where a query leaves them out, with their expressions as SQL text.
    fn generated_columns(&self) -> BTreeMap<String, String>;

    /// The files that may hold rows that pass all filters.
    fn files(&self, session: &dyn Session, filters: &[Expr]) -> Result<Vec<LakeFile>>;

    /// Whether a filter can be decided by partition values alone, so that it holds for all rows of a file or
    /// for none.
    fn is_on_partitions(&self, filter: &Expr) -> bool;

    /// The table made of these files alone (`None`: all). With `number_column` it has one more column at its end,
    /// of type `BIGINT`: the number of the file that a row is from.
    fn table(&self, files: Option<&[usize]>, number_column: Option<&str>) -> Result<Arc<dyn TableProvider>>;

    /// Fails with `Code::Unsupported` if we cannot write what the table demands of its writers.
    fn demand_writable(&self) -> Result<()>;

    /// The same for a change that writes rows anew which are in the table already.
    fn demand_rewritable(&self) -> Result<()>;

    /// Commits the change and returns the version that has it.
    ///
    /// # Errors
    /// `Code::Conflict` when somebody else committed something that contradicts it.
    async fn commit(&self, change: Change) -> Result<u64>;
}
