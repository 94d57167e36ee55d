//! CREATE and DROP of sources, connections, tables, views and schemas.

use super::answers::nothing;
use super::api::Answer;
use super::change::{fillable, other_tables};
use super::definitions::{Definitions, IfThere, SchemaDef};
use arrow::datatypes::SchemaRef;
use backon::{ExponentialBuilder, Retryable};
use datafusion::logical_expr::LogicalPlan;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, ConnectorRegistry, Error, Result, SinkSpec, store};
use tidemill_engine::LakeFormat;
use tidemill_sql::TableName;
use tidemill_sql::catalog::{Catalog, Change};
use tidemill_sql::statement::{
    ConnectionDef, CreateConnection, CreateExternalTable, CreateSchema, CreateSource, CreateView,
    FunctionDef, SourceDef, TableDef, TableFormat, ViewDef,
};
use url::Url;

/// The sink that writes tables of the lake.
const LAKE_SINK: &str = "delta";

const LEADER_PAUSE: Duration = Duration::from_millis(200);

/// Changes definitions, in the journal first and then in the catalog.
#[derive(Clone, Debug)]
pub(super) struct Definer {
    pub(super) definitions: Definitions,
    pub(super) catalog: Catalog,
    pub(super) lake: Arc<dyn LakeFormat>,
    pub(super) connectors: ConnectorRegistry,
}

impl Definer {
    /// Fills the catalog from the journal.
    pub(super) async fn load(&self) -> Result<()> {
        for table in self.definitions.all::<TableDef>().await? {
            self.catalog.apply(Change::PutTable(table));
        }
        for view in self.definitions.all::<ViewDef>().await? {
            self.catalog.apply(Change::PutView(view));
        }
        for schema in self.definitions.all::<SchemaDef>().await? {
            self.catalog.apply(Change::PutSchema(schema.name));
        }
        for function in self.definitions.all::<FunctionDef>().await? {
            self.catalog.apply(Change::PutFunction(function));
        }
        for source in self.definitions.all::<SourceDef>().await? {
            self.catalog.apply(Change::PutSource(source.name));
        }
        Ok(())
    }

    pub(super) async fn source(&self, create: CreateSource) -> Result<Answer> {
        // Faults in options show now, and so do a broker that does not answer and a topic that is not there.
        let source = self.connectors.source(&create.source.spec)?;
        let ask = || source.available();
        let pauses = ExponentialBuilder::default().with_min_delay(LEADER_PAUSE).with_max_times(4);
        // Just after a topic was made its partitions have no leader yet.
        ask.retry(pauses).when(|error: &Error| error.code == Code::ExternalFailure).await?;
        let if_there = IfThere::of(create.or_replace, create.if_not_exists);
        if self.definitions.put(&create.source, if_there).await? {
            self.catalog.apply(Change::PutSource(create.source.name));
        }
        Ok(nothing())
    }

    pub(super) async fn connection(&self, create: CreateConnection) -> Result<Answer> {
        let connector = &create.connection.connector;
        if !self.connectors.sink_names().any(|name| name == connector) {
            return Err(Error::new(Code::BadOption, format!("no sink connector `{connector}`"))
                .suggest(connector, self.connectors.sink_names()));
        }
        let if_there = IfThere::of(create.or_replace, create.if_not_exists);
        self.definitions.put(&create.connection, if_there).await?;
        Ok(nothing())
    }

    pub(super) async fn view(&self, create: CreateView) -> Result<Answer> {
        self.catalog.check_view(&create.view).await?;
        let if_there = IfThere::of(create.or_replace, create.if_not_exists);
        if self.definitions.put(&create.view, if_there).await? {
            self.catalog.apply(Change::PutView(create.view));
        }
        Ok(nothing())
    }

    pub(super) async fn schema(&self, create: CreateSchema) -> Result<Answer> {
        let definition = SchemaDef { name: create.name.clone() };
        if self.definitions.put(&definition, IfThere::of(false, create.if_not_exists)).await? {
            self.catalog.apply(Change::PutSchema(create.name));
        }
        Ok(nothing())
    }

    pub(super) async fn external_table(&self, create: CreateExternalTable) -> Result<Answer> {
        let table = self.catalog.complete(create.table).await?;
        self.put_table(table, IfThere::of(create.or_replace, create.if_not_exists)).await?;
        Ok(nothing())
    }

    /// Where an INSERT that names `columns`, or none, writes to, and the columns that it fills.
    pub(super) async fn insert_target(
        &self,
        name: &TableName,
        columns: &[String],
    ) -> Result<(SinkSpec, SchemaRef)> {
        let location = self.lake_location(name).await?;
        let table = self.lake.snapshot(&location).await?;
        Ok((labelled_sink(&location, "WRITE"), fillable(table.as_ref(), columns)?))
    }

    /// Where a table is that can be written to.
    pub(super) async fn lake_location(&self, name: &TableName) -> Result<Url> {
        match self.catalog.table(name) {
            Some(table) if table.format != TableFormat::Delta => {
                Err(Error::new(Code::Unsupported, format!("`{name}` is made of foreign files"))
                    .hint("only Delta tables are written to: CREATE TABLE t AS SELECT * FROM it"))
            }
            Some(table) => store::location(&table.location),
            None if self.catalog.view(name).is_some() => {
                Err(Error::new(Code::Unsupported, format!("`{name}` is a view"))
                    .hint("write to the table that it reads"))
            }
            None => {
                let location = self.catalog.default_location(name)?;
                match self.lake.exists(&location).await? {
                    true => Ok(location),
                    false => {
                        // Says what else it is, if it is something.
                        self.catalog.open(name).await?;
                        let names = self.catalog.names(&name.schema);
                        Err(Error::new(Code::UnknownObject, format!("no table `{name}`"))
                            .suggest(&name.name, names.iter().map(String::as_str)))
                    }
                }
            }
        }
    }

    pub(super) fn location(&self, name: &TableName, given: Option<&str>) -> Result<Url> {
        match given {
            Some(text) => store::location(text),
            None => self.catalog.default_location(name),
        }
    }

    pub(super) async fn put_table(&self, table: TableDef, if_there: IfThere) -> Result<()> {
        if self.definitions.put(&table, if_there).await? {
            self.catalog.apply(Change::PutTable(table));
        }
        Ok(())
    }

    /// `DROP TABLE`: a table at the place that its name gives it goes with its files, as the next one of this name
    /// will have that place. Files at a location that somebody chose stay.
    pub(super) async fn drop_table(&self, name: &TableName, if_exists: bool) -> Result<Answer> {
        if let Some(table) = self.catalog.table(name)
            && table.format == TableFormat::Delta
        {
            let location = store::location(&table.location)?;
            if location == self.catalog.default_location(name)? {
                self.lake.remove(&location).await?;
            }
        }
        self.forget_table(name, if_exists).await
    }

    /// The table is known no more; its files stay where they are.
    pub(super) async fn forget_table(&self, name: &TableName, if_exists: bool) -> Result<Answer> {
        if self.catalog.table(name).is_none() && if_exists {
            return Ok(nothing());
        }
        self.definitions.find::<TableDef>(&name.to_string()).await?;
        self.definitions.remove::<TableDef>(&name.to_string()).await?;
        self.catalog.apply(Change::DropTable(name.clone()));
        Ok(nothing())
    }

    pub(super) async fn drop_view(&self, name: &TableName, if_exists: bool) -> Result<Answer> {
        if self.catalog.view(name).is_none() && if_exists {
            return Ok(nothing());
        }
        self.definitions.find::<ViewDef>(&name.to_string()).await?;
        self.definitions.remove::<ViewDef>(&name.to_string()).await?;
        self.catalog.apply(Change::DropView(name.clone()));
        Ok(nothing())
    }

    pub(super) async fn drop_schema(&self, name: &str, if_exists: bool) -> Result<Answer> {
        let inside = self.catalog.names(name);
        if !inside.is_empty() {
            let message = format!("schema `{name}` holds {}", inside.join(", "));
            return Err(
                Error::new(Code::InvalidStatement, message).hint("drop them first, or DROP SCHEMA … CASCADE")
            );
        }
        if self.definitions.get::<SchemaDef>(name).await?.is_none() && if_exists {
            return Ok(nothing());
        }
        self.definitions.find::<SchemaDef>(name).await?;
        self.definitions.remove::<SchemaDef>(name).await?;
        self.catalog.apply(Change::DropSchema(name.to_owned()));
        Ok(nothing())
    }

    /// Pipelines keep a copy of their source, so that they go on without it.
    pub(super) async fn drop_source(&self, name: &str, if_exists: bool) -> Result<Answer> {
        if self.definitions.get::<SourceDef>(name).await?.is_none() && if_exists {
            return Ok(nothing());
        }
        self.definitions.find::<SourceDef>(name).await?;
        self.definitions.remove::<SourceDef>(name).await?;
        self.catalog.apply(Change::DropSource(name.to_owned()));
        Ok(nothing())
    }

    pub(super) async fn drop_connection(&self, name: &str, if_exists: bool) -> Result<Answer> {
        if self.definitions.get::<ConnectionDef>(name).await?.is_none() && if_exists {
            return Ok(nothing());
        }
        self.definitions.find::<ConnectionDef>(name).await?;
        self.definitions.remove::<ConnectionDef>(name).await?;
        Ok(nothing())
    }
}

pub(crate) fn lake_sink(location: &Url) -> SinkSpec {
    SinkSpec { connector: LAKE_SINK.to_owned(), target: location.to_string(), options: BTreeMap::new() }
}

/// The same for the rows of a statement: the table's history calls its commit `operation`.
fn labelled_sink(location: &Url, operation: &str) -> SinkSpec {
    let mut sink = lake_sink(location);
    sink.options.insert("operation".to_owned(), operation.to_owned());
    sink
}

/// Whether the plan may read `table`. A folder may be that of the table, and schemas are not told apart.
pub(super) fn reads_table(plan: &LogicalPlan, table: &TableName) -> Result<bool> {
    Ok(other_tables(plan)?.iter().any(|name| *name == table.name || name.contains('/')))
}

/// The sink of rows that `plan` makes for `table`: others must know where these depend on rows that are there.
pub(super) fn sink_of_plan(mut sink: SinkSpec, table: &TableName, plan: &LogicalPlan) -> Result<SinkSpec> {
    if reads_table(plan, table)? {
        sink.options.insert("blind_append".to_owned(), false.to_string());
    }
    Ok(sink)
}

pub(super) fn delta_table(name: TableName, location: &Url) -> TableDef {
    TableDef::delta(name, location.to_string())
}
