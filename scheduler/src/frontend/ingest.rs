//! Bulk ingest: rows that a client sends become the input of one write, as they come, and one commit.
//!
//! ```text
//! client ─▶ stream of batches ─▶ Arriving (a table that is read once) ─▶ INSERT's projection ─▶ WriteExec
//! ```

use super::api::{Answer, Ingest, IngestInto, SessionId};
use super::define::delta_table;
use super::definitions::IfThere;
use super::service::SqlFrontend;
use super::session::Session;
use super::unfilled::Unfilled;
use crate::engines::EngineChoice;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::CatalogProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::{TableOptions, from_datafusion, to_datafusion};
use tidemill_sql::statement::align;
use tidemill_sql::{CATALOG, TableName};

impl SqlFrontend {
    pub(super) async fn ingest_rows(&self, id: &SessionId, ingest: Ingest) -> Result<Answer> {
        let mut session = self.sessions.get(id)?;
        // The rows come to this process, and only here they can be read.
        session.engine = EngineChoice::Auto;
        let Ingest { catalog, schema, table, create, into, rows } = ingest;
        if let Some(catalog) = catalog.filter(|name| name != CATALOG) {
            return Err(Error::new(Code::UnknownObject, format!("no catalog `{catalog}`"))
                .hint(format!("the only one is `{CATALOG}`")));
        }
        let name = TableName::new(schema.unwrap_or_else(|| session.schema.clone()), table);
        let made = self.make_room(&name, create, into, &rows.schema()).await?;
        let unfilled = made.then(|| Unfilled::new(self.definer.clone(), name.clone()));
        match self.write_rows(&session, &name, rows).await {
            Ok(answer) => match unfilled {
                Some(unfilled) => Ok(Answer { stream: unfilled.watch(answer.stream), ..answer }),
                None => Ok(answer),
            },
            Err(error) => {
                if let Some(unfilled) = unfilled {
                    unfilled.undo().await;
                }
                Err(error)
            }
        }
    }

    /// True when the table was made for these rows.
    async fn make_room(
        &self,
        name: &TableName,
        create: bool,
        into: IngestInto,
        schema: &SchemaRef,
    ) -> Result<bool> {
        let there = self.catalog.open(name).await?.is_some();
        match (there, into) {
            (true, IngestInto::Append) => return Ok(false),
            (true, IngestInto::NewTable) => {
                return Err(Error::new(Code::AlreadyExists, format!("there is a table `{name}`"))
                    .hint("append to it, or DROP TABLE it first"));
            }
            (true, IngestInto::Replaced) => {
                return Err(Error::new(Code::Unsupported, format!("replacing the table `{name}`"))
                    .hint("DROP TABLE it first, or append to it"));
            }
            (false, _) if !create => return Err(self.no_table(name)),
            (false, _) => {}
        }
        let known = self.catalog.schema_names();
        if !known.contains(&name.schema) {
            return Err(Error::new(Code::UnknownObject, format!("no schema `{}`", name.schema))
                .suggest(&name.schema, known.iter().map(String::as_str)));
        }
        let location = self.definer.location(name, None)?;
        let plain = Arc::new(schema.as_ref().clone().with_metadata(Default::default()));
        match self.definer.lake.create(&location, plain, &TableOptions::default()).await {
            Ok(()) => {}
            // Another client was faster.
            Err(error) if error.code == Code::AlreadyExists && into == IngestInto::Append => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.definer.put_table(delta_table(name.clone(), &location), IfThere::Fail).await?;
        Ok(true)
    }

    async fn write_rows(
        &self,
        session: &Session,
        name: &TableName,
        rows: SendableRecordBatchStream,
    ) -> Result<Answer> {
        let given: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        let (sink, columns) = self.definer.insert_target(name, &given).await?;
        let targets = targets(&rows.schema(), &columns)?;
        let plan = align(name, &targets, arriving(rows)?, &columns)?;
        self.runner.write(session, &format!("INGEST INTO {}", name.to_sql()), plan, sink).await
    }
}

/// The columns of the table that the given ones go to: by name, and where there is no such name, in another case.
fn targets(given: &SchemaRef, table: &SchemaRef) -> Result<Vec<String>> {
    if given.fields().is_empty() {
        return Err(Error::new(Code::InvalidStatement, "the rows have no columns"));
    }
    let target = |name: &str| {
        let near = table.fields().iter().find(|column| column.name().eq_ignore_ascii_case(name));
        match (table.field_with_name(name), near) {
            (Err(_), Some(near)) => near.name().clone(),
            _ => name.to_owned(),
        }
    };
    Ok(given.fields().iter().map(|field| target(field.name())).collect())
}

/// A scan of rows that are there once.
fn arriving(rows: SendableRecordBatchStream) -> Result<LogicalPlan> {
    let schema = rows.schema();
    let partition = Arriving { schema: schema.clone(), rows: Mutex::new(Some(rows)) };
    let table = StreamingTable::try_new(schema, vec![Arc::new(partition)]).map_err(from_datafusion)?;
    let scan = LogicalPlanBuilder::scan("rows", provider_as_source(Arc::new(table)), None);
    scan.and_then(LogicalPlanBuilder::build).map_err(from_datafusion)
}

struct Arriving {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl PartitionStream for Arriving {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        self.rows.lock().take().unwrap_or_else(|| {
            let error = Error::internal("rows that a client sends were to be read twice");
            let failing = futures::stream::iter([Err(to_datafusion(error))]);
            Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), failing))
        })
    }
}
