//! CREATE TABLE, with or without a query, and CREATE OR REPLACE TABLE: one commit.
//!
//! ```text
//! columns, or the query's ─▶ draft ─▶ the query's rows, written for the draft ─▶ commit ─▶ definition in the journal
//!                                                                                  └─ no table, or one to be replaced
//! ```
//! Until the commit there is no table, or the one before; files of a statement that fails belong to nobody.

use super::super::answers::nothing;
use super::super::api::Answer;
use super::super::define::{Definer, delta_table, lake_sink, reads_table};
use super::super::definitions::IfThere;
use super::super::service::SqlFrontend;
use super::super::session::Session;
use super::work::{What, Work, total};
use arrow::datatypes::{Schema, SchemaRef};
use backon::{ExponentialBuilder, Retryable};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result, Written, store};
use tidemill_engine::{Change, LakeSnapshot, TableDraft, TableOptions};
use tidemill_sql::plan_query;
use tidemill_sql::statement::{CreateTable, TableFormat, align};
use url::Url;

/// How often a commit that replaces a table is tried when others commit at the same time, and the first pause.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);

/// A table that a statement makes.
pub(super) struct Creation {
    definer: Definer,
    create: CreateTable,
    location: Url,
}

impl SqlFrontend {
    pub(super) async fn create_table(
        &self,
        session: &Session,
        sql: &str,
        create: &CreateTable,
    ) -> Result<Answer> {
        let Some(location) = self.room_for(create).await? else { return Ok(nothing()) };
        let creation = Creation { definer: self.definer.clone(), create: create.clone(), location };
        if create.query.is_none() {
            creation.empty(&session.state).await?;
            return Ok(nothing());
        }
        let work = Work {
            runner: self.runner.clone(),
            session: session.clone(),
            state: session.state.clone(),
            engine: session.engine,
            context: session.state.task_ctx(),
            lake: self.definer.lake.clone(),
            location: creation.location.clone(),
            title: sql.to_owned(),
            params: None,
            progress: Arc::default(),
            what: Arc::new(What::Create(Box::new(creation))),
        };
        // Faults of the statement show before it begins.
        let plan = work.describe().await?.ok_or_else(|| Error::internal("a query without a plan"))?;
        self.begin(session, sql, work, plan).await
    }

    /// Where the table will be; `None` if there is one that stays.
    async fn room_for(&self, create: &CreateTable) -> Result<Option<Url>> {
        let (name, known) = (&create.name, self.catalog.table(&create.name));
        if self.catalog.view(name).is_some() {
            return Err(Error::new(Code::AlreadyExists, format!("there is a view `{name}`"))
                .hint("choose another name, or DROP VIEW it first"));
        }
        let given = create.location.as_deref().map(store::location).transpose()?;
        let location = match (&known, given) {
            (Some(table), given) if create.or_replace => {
                if table.format != TableFormat::Delta {
                    let message = format!("`{name}` is made of foreign files, which are not replaced");
                    return Err(Error::new(Code::Unsupported, message).hint("DROP TABLE it first"));
                }
                let location = store::location(&table.location)?;
                if given.is_some_and(|given| given != location) {
                    let message = format!("`{name}` is at {location}, and stays there when it is replaced");
                    return Err(Error::new(Code::InvalidStatement, message)
                        .hint("leave the location out, or DROP TABLE it first"));
                }
                location
            }
            (_, Some(given)) => given,
            (_, None) => self.catalog.default_location(name)?,
        };
        if known.is_none() && !self.definer.lake.exists(&location).await? {
            return Ok(Some(location));
        }
        if create.if_not_exists {
            // Whoever asks for a table at a place of their own wants to find it by its name.
            if known.is_none() {
                self.definer.put_table(delta_table(name.clone(), &location), IfThere::Keep).await?;
            }
            return Ok(None);
        }
        if !create.or_replace && known.is_none() {
            let message = format!("there is a Delta table at {location}");
            let external = format!("CREATE EXTERNAL TABLE {name} STORED AS DELTA LOCATION '{location}'");
            return Err(Error::new(Code::AlreadyExists, message)
                .hint(format!("{external} gives it the name, OR REPLACE replaces it")));
        }
        if !create.or_replace {
            return Err(Error::new(Code::AlreadyExists, format!("there is a table `{name}`"))
                .hint("use IF NOT EXISTS or OR REPLACE, or DROP TABLE it first"));
        }
        match self.operator.pipeline_of(name) {
            Some(pipeline) => {
                Err(Error::new(Code::InvalidStatement, format!("`{name}` is filled by a pipeline"))
                    .hint(format!("DROP STREAMING TABLE {pipeline}")))
            }
            None => Ok(Some(location)),
        }
    }
}

/// The query's rows as the new table takes them: for EXPLAIN, and to see what is wrong with it.
pub(super) async fn describe(work: &Work, creation: &Creation) -> Result<LogicalPlan> {
    creation.plan(&work.state).await.map(|(plan, _)| plan)
}

/// Rows that the new table has.
pub(super) async fn fill(work: &Work, creation: &Creation) -> Result<u64> {
    let (lake, location, state) = (&work.lake, &creation.location, &work.state);
    let before = match creation.create.or_replace && lake.exists(location).await? {
        true => Some(lake.snapshot(location).await?),
        false => None,
    };
    let (plan, draft) = creation.plan(state).await?;
    // What reads the table that it replaces takes its place only if that has no rows that it did not see.
    let itself = reads_table(&plan, &creation.create.name)?;
    let seen = before.filter(|_| itself);
    if let Some(seen) = &seen
        && lake.snapshot(location).await?.version() != seen.version()
    {
        let message = "the table was changed by others while the statement was planned";
        return Err(Error::new(Code::Conflict, message).hint("run the statement again"));
    }
    let mut sink = lake_sink(location);
    sink.options.insert("definition".to_owned(), draft.definition.clone());
    let (adds, _) = work.write_to(sink, state, &plan, false).await?;
    let rows = total(&adds);
    let is_made = creation.commit(state, draft, adds, seen).await?;
    Ok(if is_made { rows } else { 0 })
}

impl Creation {
    async fn empty(&self, state: &SessionState) -> Result<()> {
        let schema = self.create.schema.clone().ok_or_else(|| Error::internal("a table without columns"))?;
        self.commit(state, self.draft(schema).await?, Vec::new(), None).await.map(|_| ())
    }

    async fn plan(&self, state: &SessionState) -> Result<(LogicalPlan, TableDraft)> {
        let query = self.create.query.clone().ok_or_else(|| Error::internal("a table without a query"))?;
        let plan = plan_query(state, query).await?;
        let schema = match &self.create.schema {
            Some(schema) => schema.clone(),
            None => nullable(plan.schema().as_arrow()),
        };
        let draft = self.draft(schema).await?;
        Ok((align(&self.create.name, &[], plan, &draft.fillable)?, draft))
    }

    async fn draft(&self, schema: SchemaRef) -> Result<TableDraft> {
        let create = &self.create;
        let options = TableOptions {
            partition_by: create.partition_by.clone(),
            comment: create.comment.clone(),
            properties: create.properties.clone().into_iter().collect(),
            column_comments: create.column_comments.clone(),
            generated: create.generated.clone(),
            constraints: create.constraints.clone(),
        };
        self.definer.lake.draft(&self.location, schema, &options).await
    }

    /// Whether the table was made: IF NOT EXISTS leaves one that others have made meanwhile. `seen` is the table
    /// that is replaced, if the rows come from it.
    async fn commit(
        &self,
        state: &SessionState,
        draft: TableDraft,
        adds: Vec<Written>,
        seen: Option<Arc<dyn LakeSnapshot>>,
    ) -> Result<bool> {
        let change = Change {
            parameters: self.parameters()?,
            metrics: metrics(&adds),
            adds,
            becomes: Some(draft),
            ..Change::new(self.operation())
        };
        let attempt = |snapshot: Option<Arc<dyn LakeSnapshot>>, mut change: Change| async move {
            let lake = &self.definer.lake;
            let snapshot = match snapshot {
                Some(snapshot) => snapshot,
                None if !self.create.or_replace || !lake.exists(&self.location).await? => {
                    return lake.establish(&self.location, change).await;
                }
                None => lake.snapshot(&self.location).await?,
            };
            change.removes = snapshot.files(state, &[])?.iter().map(|file| file.number).collect();
            change.metrics.insert("numRemovedFiles".to_owned(), change.removes.len() as u64);
            snapshot.commit(change).await.map(|_| ())
        };
        let made = match seen {
            // The rows have to be made anew where others were faster.
            Some(seen) => attempt(Some(seen), change).await.map(|()| true),
            None => {
                let or_replace = self.create.or_replace;
                // Whoever came first is replaced.
                let again = |error: &Error| {
                    error.code == Code::Conflict || or_replace && error.code == Code::AlreadyExists
                };
                let pauses =
                    ExponentialBuilder::default().with_jitter().with_min_delay(PAUSE).with_max_times(TRIES);
                (|| attempt(None, change.clone())).retry(pauses).when(again).await.map(|()| true)
            }
        };
        let is_made = match made {
            Err(error) if error.code == Code::AlreadyExists && self.create.if_not_exists => false,
            made => made?,
        };
        self.register().await?;
        Ok(is_made)
    }

    /// Gives the table its name, unless it has it.
    async fn register(&self) -> Result<()> {
        let (catalog, name) = (&self.definer.catalog, &self.create.name);
        let taken = |what: String| {
            let message = format!("{what} was called `{name}` meanwhile; the rows are at {}", self.location);
            Error::new(Code::AlreadyExists, message).hint(format!(
                "CREATE EXTERNAL TABLE … STORED AS DELTA LOCATION '{}' names them",
                self.location
            ))
        };
        if catalog.view(name).is_some() {
            return Err(taken("a view".to_owned()));
        }
        match catalog.table(name) {
            Some(known) if store::location(&known.location)? == self.location => Ok(()),
            Some(known) => Err(taken(format!("another table, at {},", known.location))),
            None => {
                let table = delta_table(name.clone(), &self.location);
                let is_lax = IfThere::of(self.create.or_replace, self.create.if_not_exists);
                self.definer.put_table(table, is_lax).await
            }
        }
    }

    /// As Spark calls it.
    fn operation(&self) -> &'static str {
        match (self.create.or_replace, self.create.query.is_some()) {
            (false, false) => "CREATE TABLE",
            (false, true) => "CREATE TABLE AS SELECT",
            (true, false) => "CREATE OR REPLACE TABLE",
            (true, true) => "CREATE OR REPLACE TABLE AS SELECT",
        }
    }

    /// Likewise, with lists and maps as text in JSON.
    fn parameters(&self) -> Result<BTreeMap<String, String>> {
        let create = &self.create;
        let is_managed = self.location == self.definer.catalog.default_location(&create.name)?;
        let mut parameters = BTreeMap::from([
            ("isManaged".to_owned(), is_managed.to_string()),
            ("partitionBy".to_owned(), serde_json::to_string(&create.partition_by)?),
            ("properties".to_owned(), serde_json::to_string(&create.properties)?),
        ]);
        parameters.extend(create.comment.clone().map(|comment| ("description".to_owned(), comment)));
        Ok(parameters)
    }
}

fn metrics(adds: &[Written]) -> BTreeMap<String, u64> {
    BTreeMap::from([
        ("numFiles".to_owned(), adds.len() as u64),
        ("numOutputRows".to_owned(), total(adds)),
        ("numOutputBytes".to_owned(), adds.iter().map(|written| written.bytes).sum()),
    ])
}

/// What a query gives, without promises for rows that come later: that it has no NULL now binds nobody.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
