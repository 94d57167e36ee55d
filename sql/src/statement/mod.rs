//! One file a statement: what it holds, how it is read, and the definition that the journal keeps of it.

mod alter;
mod change;
mod comment;
mod connection;
mod control;
mod describe;
mod drop;
mod explain;
mod external_table;
mod function;
mod insert;
mod load;
mod maintain;
mod merge;
mod parse;
mod pipeline;
mod set;
mod show;
mod source;
mod table;
mod table_columns;
mod view;

#[cfg(test)]
mod tests;

pub use alter::{AlterAction, AlterTable};
pub use change::{Delete, TableChange, Update};
pub use comment::Comment;
pub use connection::{ConnectionDef, CreateConnection};
pub use control::{Control, ControlAction, ControlTarget};
pub use describe::Describe;
pub use drop::{Drop, ObjectKind};
pub use explain::{Explain, ExplainFormat};
pub use external_table::CreateExternalTable;
pub use function::{Body, CreateFunction, FunctionDef, Parameter};
pub use insert::{Insert, InsertMode, align};
pub use load::{CreateLoad, LoadDef, RunLoad, Schedule};
pub use maintain::{Maintain, Place};
pub use merge::{Merge, MergeAction, MergeClause, MergeWhen};
pub use parse::parse;
pub use pipeline::{CreateStreamingTable, Expectation, OnViolation, PipelineDef, Trigger};
pub use set::Set;
pub use show::Show;
pub use source::{CreateSource, Encoding, SourceDef, Watermark};
pub use table::{CreateTable, TableDef, TableFormat};
pub use view::{AlterView, CreateSchema, CreateView, ViewChange, ViewDef};

use datafusion::sql::sqlparser::ast::Query;

/// Everything that a client can say. Names are resolved against the session's schema already.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `SELECT`, `VALUES`, `WITH`, `TABLE`.
    Query(Box<Query>),
    Explain(Explain),
    Insert(Insert),
    /// DELETE, UPDATE, MERGE, TRUNCATE, ALTER TABLE.
    Change(Box<TableChange>),
    CreateSource(CreateSource),
    CreateStreamingTable(CreateStreamingTable),
    CreateConnection(CreateConnection),
    CreateLoad(CreateLoad),
    RunLoad(RunLoad),
    CreateTable(CreateTable),
    CreateExternalTable(CreateExternalTable),
    CreateView(CreateView),
    AlterView(AlterView),
    CreateFunction(CreateFunction),
    CreateSchema(CreateSchema),
    Comment(Comment),
    Control(Control),
    Drop(Drop),
    Show(Show),
    Describe(Describe),
    Set(Set),
    Maintain(Maintain),
}
