//! The frontend itself: a statement comes in, the right part answers.

use super::answers::{count_schema, counted, nothing, text, text_schema};
use super::api::{
    Answer, AnswerKind, Description, Frontend, Ingest, SchemaInfo, SessionId, TableFilter, TableInfo,
};
use super::define::{Definer, sink_of_plan};
use super::describe;
use super::jobs::Jobs;
use super::maintain;
use super::operate::Operator;
use super::params;
use super::query::Runner;
use super::session::{Session, Sessions};
use crate::maintenance::Optimizer;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, TableProvider};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{LogicalPlan, TableType};
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, JobId, Result};
use tidemill_engine::{Progress, from_datafusion};
use tidemill_sql::catalog::Catalog;
use tidemill_sql::statement::{Explain, Insert, ObjectKind, Show, Statement, TableChange};
use tidemill_sql::{CATALOG, SYSTEM_SCHEMA, TableName, parse, plan_query};

/// Statements of clients, over everything that this process has.
#[derive(Debug)]
pub struct SqlFrontend {
    pub(super) sessions: Sessions,
    /// What a new client session is a copy of.
    pub(super) fresh: SessionState,
    pub(super) catalog: Catalog,
    pub(super) runner: Runner,
    pub(super) definer: Definer,
    pub(super) operator: Operator,
    pub(super) jobs: Jobs,
    pub(super) optimizer: Optimizer,
    /// VACUUM keeps files that no version has for this long.
    pub(super) orphan_retention: Duration,
}

impl SqlFrontend {
    async fn run(
        &self,
        session: &Session,
        id: &SessionId,
        sql: &str,
        statement: Statement,
        params: Option<RecordBatch>,
    ) -> Result<Answer> {
        if let Some(answer) = self.change(session, sql, &statement, params.as_ref()).await? {
            return Ok(answer);
        }
        if let Some(plan) = self.plan(session, &statement, params.as_ref()).await? {
            return match statement {
                Statement::Insert(insert) => {
                    let (sink, _) = self.definer.insert_target(&insert.table, &insert.columns).await?;
                    let sink = sink_of_plan(sink, &insert.table, &plan)?;
                    self.runner.write(session, sql, plan, sink).await
                }
                Statement::Explain(explain) => {
                    if explain.analyze && !matches!(*explain.statement, Statement::Query(_)) {
                        return Err(Error::new(
                            Code::Unsupported,
                            "EXPLAIN ANALYZE of a statement that writes",
                        )
                        .hint("EXPLAIN ANALYZE its query"));
                    }
                    self.runner.explain(session, plan, &explain).await
                }
                _ => self.runner.query(session, sql, plan).await,
            };
        }
        if params.is_some() {
            return Err(Error::new(Code::Unsupported, "parameters in this statement")
                .hint("queries, INSERT, UPDATE, DELETE and MERGE take parameters"));
        }
        match statement {
            Statement::CreateSource(create) => self.definer.source(create).await,
            Statement::CreateConnection(create) => self.definer.connection(create).await,
            Statement::CreateView(create) if create.temporary => {
                self.temporary_view(id, session, create).await
            }
            Statement::CreateView(create) => self.definer.view(create).await,
            Statement::AlterView(alter) => self.definer.alter_view(alter).await,
            Statement::CreateFunction(create) => self.definer.function(create).await,
            Statement::Comment(comment) => self.definer.comment(comment).await,
            Statement::Describe(describe) => self.describe_table(session, &describe).await,
            Statement::Show(Show::Create(name)) => self.show_create(session, &name).await,
            Statement::Show(Show::Properties { table, key }) => {
                self.show_properties(session, &table, key.as_deref()).await
            }
            Statement::CreateSchema(create) => self.definer.schema(create).await,
            Statement::CreateExternalTable(create) => self.definer.external_table(create).await,
            Statement::CreateStreamingTable(create) => self.operator.create_pipeline(create).await,
            Statement::CreateLoad(create) => self.operator.create_load(create).await,
            Statement::RunLoad(run) => self.operator.run_load(run).await,
            Statement::Control(control) => self.operator.control(control).await,
            Statement::Drop(drop) => match drop.object {
                ObjectKind::Schema(name) if drop.cascade => self.drop_all(&name, drop.if_exists).await,
                ObjectKind::View(name) if session.has_temporary_view(&name) => {
                    self.drop_temporary_view(id, &name)
                }
                object => self.drop_object(object, drop.if_exists).await,
            },
            Statement::Set(set) => {
                let change =
                    |session: &mut Session| session.set(&set.name, set.value.as_deref(), &self.fresh);
                self.sessions.change(id, change)?;
                Ok(nothing())
            }
            Statement::Show(Show::All) => {
                let rows: Vec<[String; 2]> =
                    session.all().into_iter().map(|(name, value)| [name, value]).collect();
                text(["name", "value"], &rows)
            }
            Statement::Show(Show::Variable(name)) => {
                text(["name", "value"], &[[name.clone(), session.get(&name)?]])
            }
            Statement::Maintain(work) => maintain::run(self, session, sql, work),
            Statement::Explain(Explain { statement, .. }) => self.explain_pipeline(*statement).await,
            Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Change(_)
            | Statement::CreateTable(_)
            | Statement::Show(_) => Err(Error::internal("a statement with a plan was not planned")),
        }
    }

    /// The plan of a statement that an engine runs, with its parameters bound.
    async fn plan(
        &self,
        session: &Session,
        statement: &Statement,
        params: Option<&RecordBatch>,
    ) -> Result<Option<LogicalPlan>> {
        let plan = match statement {
            Statement::Query(query) => plan_query(&session.state, query.clone()).await?,
            Statement::Insert(insert) => self.plan_insert(session, insert).await?,
            Statement::Change(change) => match self.change_plan(session, change).await? {
                Some(plan) => plan,
                None => return Ok(None),
            },
            Statement::Explain(explain) => {
                return Box::pin(self.plan(session, &explain.statement, params)).await;
            }
            Statement::CreateTable(create) => match &create.query {
                // Only to be explained: running it is more than running its query.
                Some(query) if params.is_none() => {
                    let plan = plan_query(&session.state, query.clone()).await;
                    return if create.if_not_exists { Ok(None) } else { plan.map(|_| None) };
                }
                _ => return Ok(None),
            },
            Statement::Show(show) => match show.query() {
                Some(sql) => self.plan_text(session, &sql).await?,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        match params {
            Some(params) => params::bind(plan, params).map(Some),
            None => Ok(Some(plan)),
        }
    }

    async fn plan_insert(&self, session: &Session, insert: &Insert) -> Result<LogicalPlan> {
        let plan = plan_query(&session.state, insert.query.clone()).await?;
        let columns = insert.columns_for(&plan);
        let (_, schema) = self.definer.insert_target(&insert.table, &columns).await?;
        let types: Vec<DataType> = match columns.as_slice() {
            [] => schema.fields().iter().map(|field| field.data_type().clone()).collect(),
            // A name that is not known is told by `align`.
            names => names
                .iter()
                .map_while(|name| schema.field_with_name(name).ok())
                .map(|field| field.data_type().clone())
                .collect(),
        };
        insert.align(params::type_values(plan, &types)?, &schema)
    }

    async fn plan_text(&self, session: &Session, sql: &str) -> Result<LogicalPlan> {
        match parse(sql, &session.schema)? {
            Statement::Query(query) => plan_query(&session.state, query).await,
            _ => Err(Error::internal(format!("`{sql}` is no query"))),
        }
    }

    pub(super) fn no_table(&self, name: &TableName) -> Error {
        let names = self.catalog.names(&name.schema);
        Error::new(Code::UnknownObject, format!("no table `{name}`"))
            .suggest(&name.name, names.iter().map(String::as_str))
    }

    async fn explain_pipeline(&self, statement: Statement) -> Result<Answer> {
        let Statement::CreateStreamingTable(create) = statement else {
            return Err(Error::new(Code::Unsupported, "EXPLAIN of this statement")
                .hint("EXPLAIN a query, an INSERT or CREATE STREAMING TABLE"));
        };
        let plan = self.operator.explain_pipeline(&create).await?;
        text(["kind", "plan"], &[["plan of an epoch".to_owned(), plan]])
    }

    pub(super) async fn drop_object(&self, object: ObjectKind, if_exists: bool) -> Result<Answer> {
        match object {
            ObjectKind::Source(name) => self.definer.drop_source(&name, if_exists).await,
            ObjectKind::Connection(name) => self.definer.drop_connection(&name, if_exists).await,
            ObjectKind::Schema(name) => self.definer.drop_schema(&name, if_exists).await,
            ObjectKind::Function(name) => self.definer.drop_function(&name, if_exists).await,
            ObjectKind::View(name) => self.definer.drop_view(&name, if_exists).await,
            ObjectKind::Load(name) => self.operator.drop_load(&name, if_exists).await,
            ObjectKind::Pipeline(name) => self.operator.drop_pipeline(&name, if_exists).await,
            ObjectKind::Table(name) => match self.operator.pipeline_of(&name) {
                Some(pipeline) => {
                    Err(Error::new(Code::InvalidStatement, format!("`{name}` is filled by a pipeline"))
                        .hint(format!("DROP STREAMING TABLE {pipeline}")))
                }
                None => self.definer.drop_table(&name, if_exists).await,
            },
        }
    }

    /// What a statement without a plan answers with.
    fn shape(statement: &Statement) -> (AnswerKind, arrow::datatypes::SchemaRef) {
        let rows = |columns: &[&str]| (AnswerKind::Rows, text_schema(columns));
        match statement {
            Statement::Explain(_) => rows(&["kind", "plan"]),
            Statement::Describe(_) => rows(&describe::COLUMNS),
            Statement::Show(Show::Create(_)) => rows(&[describe::CREATED]),
            Statement::Show(Show::Properties { .. }) => rows(&describe::PROPERTIES),
            Statement::Show(_) => rows(&["name", "value"]),
            Statement::RunLoad(_) => rows(&["run", "from", "to", "status", "rows", "counted"]),
            Statement::Maintain(work) => (AnswerKind::Rows, maintain::schema(work)),
            Statement::CreateTable(create) if create.query.is_some() => (AnswerKind::Count, count_schema()),
            _ => (AnswerKind::Nothing, Arc::new(Schema::empty())),
        }
    }
}

#[async_trait]
impl Frontend for SqlFrontend {
    async fn open_session(&self, user: &str) -> Result<SessionId> {
        Ok(self.sessions.open(user, self.fresh.clone()))
    }

    async fn close_session(&self, session: &SessionId) {
        self.sessions.close(session);
    }

    async fn execute(&self, session: &SessionId, sql: &str, params: Option<RecordBatch>) -> Result<Answer> {
        let state = self.sessions.get(session)?;
        let sql = params::number_placeholders(sql)?;
        let statement = parse(&sql, &state.schema)?;
        match params {
            // What changes rows that are there runs once for each row of parameters, in their order.
            Some(rows) if rows.num_rows() > 1 && matches!(statement, Statement::Change(_)) => {
                let mut changed = 0;
                for row in 0..rows.num_rows() {
                    let one = Some(rows.slice(row, 1));
                    let answer = self.run(&state, session, &sql, statement.clone(), one).await?;
                    changed += answer.affected_rows().await?.unwrap_or(0);
                }
                Ok(counted(changed))
            }
            params => self.run(&state, session, &sql, statement, params).await,
        }
    }

    async fn ingest(&self, session: &SessionId, ingest: Ingest) -> Result<Answer> {
        self.ingest_rows(session, ingest).await
    }

    async fn variable(&self, session: &SessionId, name: &str) -> Result<String> {
        self.sessions.get(session)?.get(name)
    }

    async fn describe(&self, session: &SessionId, sql: &str) -> Result<Description> {
        let state = self.sessions.get(session)?;
        let sql = params::number_placeholders(sql)?;
        let statement = parse(&sql, &state.schema)?;
        let plan = self.plan(&state, &statement, None).await?;
        let (kind, schema) = match (&statement, &plan) {
            (Statement::Insert(_), _) => (AnswerKind::Count, count_schema()),
            (Statement::Change(change), _) if !matches!(**change, TableChange::Alter(_)) => {
                (AnswerKind::Count, count_schema())
            }
            (Statement::Query(_) | Statement::Show(_), Some(plan)) => {
                (AnswerKind::Rows, Arc::new(plan.schema().as_arrow().clone()))
            }
            _ => Self::shape(&statement),
        };
        let parameters = match &plan {
            Some(plan) => params::parameters(plan)?,
            None => Arc::new(Schema::empty()),
        };
        Ok(Description { kind, schema, parameters })
    }

    async fn execute_substrait(
        &self,
        session: &SessionId,
        plan: &[u8],
        params: Option<RecordBatch>,
    ) -> Result<Answer> {
        self.run_substrait(&self.sessions.get(session)?, plan, params).await
    }

    async fn describe_substrait(&self, session: &SessionId, plan: &[u8]) -> Result<Description> {
        self.shape_of_substrait(&self.sessions.get(session)?, plan).await
    }

    async fn cancel(&self, job: &JobId, user: Option<&str>) -> Result<bool> {
        Ok(self.jobs.cancel(job, user))
    }

    async fn progress(&self, job: &JobId) -> Option<Progress> {
        self.jobs.progress(job)
    }

    async fn schemas(&self, _: &SessionId) -> Result<Vec<SchemaInfo>> {
        let names = self.catalog.schema_names().into_iter();
        Ok(names.map(|schema| SchemaInfo { catalog: CATALOG.to_owned(), schema }).collect())
    }

    async fn tables(&self, _: &SessionId, filter: &TableFilter) -> Result<Vec<TableInfo>> {
        let mut tables = Vec::new();
        for schema in self.catalog.schema_names() {
            let Some(provider) = self.catalog.schema(&schema) else { continue };
            for name in provider.table_names() {
                let system = schema == SYSTEM_SCHEMA;
                let opened: Option<Arc<dyn TableProvider>> = match filter.with_columns {
                    // A table that does not open is still a table.
                    true => provider.table(&name).await.map_err(from_datafusion).ok().flatten(),
                    false => None,
                };
                let is_view = match &opened {
                    Some(table) => table.table_type() == TableType::View,
                    None => self.catalog.view(&TableName::new(&schema, &name)).is_some(),
                };
                let kind = match (system, is_view) {
                    (true, _) => "SYSTEM TABLE",
                    (_, true) => "VIEW",
                    _ => "TABLE",
                };
                let columns = opened.map(|table| table.schema());
                tables.push(TableInfo {
                    catalog: CATALOG.to_owned(),
                    schema: schema.clone(),
                    name,
                    kind,
                    columns,
                });
            }
        }
        Ok(tables)
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }
}
