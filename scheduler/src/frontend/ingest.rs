//! Bulk ingest: rows that a client sends become the input of one write, as they come, and one commit.
//!
//! ```text
//! client ─▶ stream of batches ─▶ Arriving (a table that is read once) ─▶ INSERT's projection ─▶ WriteExec
//! ```

use super::api::{Answer, Ingest, IngestInto, SessionId};
use super::define::delta_table;
use super::definitions::IfThere;
use super::query::Commit;
use super::service::SqlFrontend;
use super::session::Session;
use super::unfilled::Unfilled;
use crate::engines::EngineChoice;
use arrow::datatypes::SchemaRef;
use backon::{ExponentialBuilder, Retryable};
use datafusion::catalog::CatalogProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, JobId, Result, Written};
use tidemill_engine::{Change, LakeFormat, TableOptions, from_datafusion, to_datafusion};
use tidemill_sql::statement::align;
use tidemill_sql::{CATALOG, TableName};
use url::Url;

/// How often a replacing commit is tried when others commit at the same time, and the first pause between.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);

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
        let replaced = into == IngestInto::Replaced && !made;
        match self.write_rows(&session, &name, rows, replaced).await {
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
            (true, IngestInto::Append | IngestInto::Replaced) => return Ok(false),
            (true, IngestInto::NewTable) => {
                return Err(Error::new(Code::AlreadyExists, format!("there is a table `{name}`"))
                    .hint("append to it, or DROP TABLE it first"));
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
            Err(error) if error.code == Code::AlreadyExists && into != IngestInto::NewTable => {
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
        replaced: bool,
    ) -> Result<Answer> {
        let given: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        let (sink, columns) = self.definer.insert_target(name, &given).await?;
        let targets = targets(&rows.schema(), &columns)?;
        let plan = align(name, &targets, arriving(rows)?, &columns)?;
        let title = format!("INGEST INTO {}", name.to_sql());
        if !replaced {
            return self.runner.write(session, &title, plan, sink).await;
        }
        if let Some(column) = columns.fields().iter().find(|column| !targets.contains(column.name())) {
            let message = format!("the table has a column `{}` that the new rows have not", column.name());
            return Err(Error::new(Code::Unsupported, message)
                .hint("DROP TABLE it first, where rows of other columns are to take its place"));
        }
        let location = self.definer.lake_location(name).await?;
        let (lake, state) = (self.definer.lake.clone(), session.state.clone());
        let commit: Commit = Arc::new(move |id, written| {
            let (lake, state, location) = (lake.clone(), state.clone(), location.clone());
            Box::pin(async move { replace(lake.as_ref(), &state, &location, &id, &written).await })
        });
        self.runner.write_and(session, &title, plan, sink, commit).await
    }
}

/// Takes out all that is there with the commit that brings the new rows. What that is does not matter to them, so
/// whatever somebody else committed meanwhile goes as well.
async fn replace(
    lake: &dyn LakeFormat,
    state: &SessionState,
    location: &Url,
    job: &JobId,
    written: &[Written],
) -> Result<()> {
    let attempt = || async {
        let snapshot = lake.snapshot(location).await?;
        let removes = snapshot.files(state, &[])?.iter().map(|file| file.number).collect();
        let mut change = Change { removes, adds: written.to_vec(), ..Change::new("WRITE") };
        change.parameters.insert("mode".to_owned(), "Overwrite".to_owned());
        change.transaction = Some((job.as_str().to_owned(), 1));
        snapshot.commit(change).await
    };
    let pauses = ExponentialBuilder::default().with_jitter().with_min_delay(PAUSE).with_max_times(TRIES);
    attempt.retry(pauses).when(|error: &Error| error.code == Code::Conflict).await?;
    Ok(())
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
