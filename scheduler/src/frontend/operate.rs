//! Statements about pipelines and loads.

use super::answers::{nothing, text};
use super::api::Answer;
use super::define::{Definer, delta_table, lake_sink};
use super::definitions::IfThere;
use crate::loads::{LoadSpec, Loads, Retries, ScheduleSpec};
use crate::pipelines::{PipelineRecord, Pipelines, Status};
use chrono::Utc;
use datafusion::execution::SessionState;
use datafusion::physical_plan::displayable;
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{Code, Error, PipelineId, Positions, Result, SinkSpec};
use tidemill_sql::TableName;
use tidemill_sql::statement::{
    ConnectionDef, Control, ControlAction, ControlTarget, CreateLoad, CreateStreamingTable, RunLoad,
    SourceDef,
};
use tidemill_sql::streaming::{StreamingDefinition, check_definition, explain_definition};
use uuid::Uuid;

/// A pipeline's dead letters are a table beside its own.
const DEAD_LETTERS_SUFFIX: &str = "_dead_letters";

/// Runs the statements that change what runs by itself.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) definer: Definer,
    pub(super) pipelines: Arc<Pipelines>,
    pub(super) loads: Arc<Loads>,
    pub(super) config: Config,
    /// A session without a catalog: pipelines see their source and nothing else.
    pub(super) base: SessionState,
}

impl Operator {
    pub(super) async fn create_pipeline(&self, create: CreateStreamingTable) -> Result<Answer> {
        let (record, schema) = self.pipeline_record(&create).await?;
        if self.pipelines.exists(&record.name) && create.if_not_exists {
            return Ok(nothing());
        }
        let name = create.pipeline.name.clone();
        let (table, dead_letters) = (record.table.clone(), record.dead_letters.clone());
        self.pipelines.create(record, &schema).await?;
        let location = |sink: &SinkSpec| tidemill_core::store::location(&sink.target);
        self.definer.put_table(delta_table(name.clone(), &location(&table)?), IfThere::Replace).await?;
        let letters = delta_table(dead_letter_name(&name), &location(&dead_letters)?);
        self.definer.put_table(letters, IfThere::Replace).await?;
        Ok(nothing())
    }

    /// What would be created, checked whole: nothing is created here.
    pub(super) async fn pipeline_record(
        &self,
        create: &CreateStreamingTable,
    ) -> Result<(PipelineRecord, arrow::datatypes::SchemaRef)> {
        let pipeline = create.pipeline.clone();
        let source_name = source_of(pipeline.parse_query()?.as_ref())?;
        let source: SourceDef = self.definer.definitions.find(&source_name).await?;
        let definition = StreamingDefinition {
            source,
            buckets: pipeline.buckets.unwrap_or(self.config.streaming.buckets),
            pipeline,
        };
        let schema = check_definition(&self.base, &definition).await?;
        let pipeline = &definition.pipeline;
        let location = self.definer.location(&pipeline.name, pipeline.location.as_deref())?;
        let mut table = lake_sink(&location);
        if !pipeline.partition_by.is_empty() {
            table.options.insert("partition_by".to_owned(), pipeline.partition_by.join(","));
        }
        let letters = tidemill_core::store::location(&format!("{location}{DEAD_LETTERS_SUFFIX}"))?;
        let limit = pipeline.max_records_per_epoch.unwrap_or(self.config.streaming.max_records_per_epoch);
        let record = PipelineRecord {
            id: PipelineId::new(Uuid::now_v7().simple().to_string()),
            name: pipeline.name.to_string(),
            max_records_per_epoch: limit,
            table,
            dead_letters: lake_sink(&letters),
            start: Positions::new(),
            status: Status::Running,
            definition,
        };
        Ok((record, schema))
    }

    /// The pipeline that fills a table, or has its dead letters there.
    pub(super) fn pipeline_of(&self, table: &TableName) -> Option<String> {
        let name = table.to_string();
        let fed = name.strip_suffix(DEAD_LETTERS_SUFFIX).unwrap_or(&name);
        [name.as_str(), fed].into_iter().find(|name| self.pipelines.exists(name)).map(str::to_owned)
    }

    /// The plan of an epoch that reads nothing.
    pub(super) async fn explain_pipeline(&self, create: &CreateStreamingTable) -> Result<String> {
        let (record, _) = self.pipeline_record(create).await?;
        let plan = explain_definition(&self.base, &record.definition).await?;
        Ok(displayable(plan.as_ref()).indent(false).to_string())
    }

    pub(super) async fn drop_pipeline(&self, name: &TableName, if_exists: bool) -> Result<Answer> {
        let key = name.to_string();
        if !self.pipelines.exists(&key) && if_exists {
            return Ok(nothing());
        }
        self.pipelines.remove(&key).await?;
        self.definer.forget_table(name, true).await?;
        self.definer.forget_table(&dead_letter_name(name), true).await?;
        Ok(nothing())
    }

    pub(super) async fn control(&self, control: Control) -> Result<Answer> {
        match (control.target, control.action) {
            (ControlTarget::Pipeline(name), ControlAction::Pause) => {
                self.pipelines.pause(&name.to_string()).await?
            }
            (ControlTarget::Pipeline(name), ControlAction::Resume) => {
                self.pipelines.resume(&name.to_string()).await?;
            }
            (ControlTarget::Pipeline(name), ControlAction::Drain) => {
                self.pipelines.drain(&name.to_string()).await?
            }
            (ControlTarget::Load(name), ControlAction::Pause) => self.loads.pause(&name).await?,
            (ControlTarget::Load(name), ControlAction::Resume) => self.loads.resume(&name).await?,
            (ControlTarget::Load(name), ControlAction::Drain) => {
                let message = format!("load `{name}` cannot be drained");
                return Err(
                    Error::new(Code::Unsupported, message).hint("PAUSE LOAD ends after the running run")
                );
            }
        }
        Ok(nothing())
    }

    pub(super) async fn create_load(&self, create: CreateLoad) -> Result<Answer> {
        let load = create.load;
        let there = self.loads.list().await?.iter().any(|known| known.spec.name == load.name);
        if there && create.if_not_exists {
            return Ok(nothing());
        }
        let connection: ConnectionDef = self.definer.definitions.find(&load.connection).await?;
        let mut options = connection.options;
        options.extend(load.options);
        if let Some(rows) = load.chunk_rows {
            options.insert("chunk_rows".to_owned(), rows.to_string());
        }
        let spec = LoadSpec {
            name: load.name.clone(),
            query: load.query,
            connection: load.connection,
            sink: SinkSpec { connector: connection.connector, target: load.target.join("."), options },
            schedule: load
                .schedule
                .map(|schedule| ScheduleSpec { cron: schedule.cron, time_zone: schedule.time_zone }),
            retries: Retries { max: load.retries.unwrap_or(Retries::default().max), ..Retries::default() },
        };
        if there && create.or_replace {
            self.loads.drop_load(&load.name).await?;
        }
        self.loads.create(spec).await?;
        Ok(nothing())
    }

    pub(super) async fn drop_load(&self, name: &str, if_exists: bool) -> Result<Answer> {
        match self.loads.drop_load(name).await {
            Err(error) if error.code == Code::UnknownObject && if_exists => Ok(nothing()),
            Err(error) => Err(error),
            Ok(()) => Ok(nothing()),
        }
    }

    pub(super) async fn run_load(&self, run: RunLoad) -> Result<Answer> {
        let (from, to) = match run.interval {
            Some(interval) => interval,
            None => self.newest_interval(&run.name).await?,
        };
        let outcome = self.loads.run_now(&run.name, from, to).await?;
        let row = |run: &crate::loads::RunRecord, verb: &str| {
            let rows = run.rows_staged.unwrap_or(0).to_string();
            let counted = run.rows_counted.map_or("unproved".to_owned(), |rows| rows.to_string());
            let interval = (run.interval.from.to_rfc3339(), run.interval.to.to_rfc3339());
            [run.run.to_string(), interval.0, interval.1, verb.to_owned(), rows, counted]
        };
        let rows: Vec<[String; 6]> = outcome
            .already
            .iter()
            .map(|run| row(run, "already loaded"))
            .chain(outcome.loaded.iter().map(|run| row(run, run.status())))
            .collect();
        text(["run", "from", "to", "status", "rows", "counted"], &rows)
    }

    async fn newest_interval(&self, name: &str) -> Result<(chrono::DateTime<Utc>, chrono::DateTime<Utc>)> {
        let loads = self.loads.list().await?;
        let load = loads.iter().find(|load| load.spec.name == name).ok_or_else(|| {
            Error::new(Code::UnknownObject, format!("no load `{name}`"))
                .suggest(name, loads.iter().map(|load| load.spec.name.as_str()))
        })?;
        match load.newest_interval(Utc::now())? {
            Some(interval) => Ok((interval.from, interval.to)),
            None => Err(Error::new(Code::InvalidStatement, format!("load `{name}` has no schedule"))
                .hint(format!("RUN LOAD {name} FOR '2026-01-01' TO '2026-02-01'"))),
        }
    }
}

fn dead_letter_name(table: &TableName) -> TableName {
    TableName::new(&table.schema, format!("{}{DEAD_LETTERS_SUFFIX}", table.name))
}

/// The one source that a streaming query reads.
fn source_of(query: &datafusion::sql::sqlparser::ast::Query) -> Result<String> {
    let names = tidemill_sql::streaming::sources(query)?;
    match names.as_slice() {
        [name] => Ok(name.clone()),
        [] => Err(Error::new(Code::InvalidStatement, "a streaming table reads no source")
            .hint("SELECT … FROM a source, or FROM TUMBLE(source, ts, INTERVAL '1 minute')")),
        many => Err(Error::new(Code::Unsupported, format!("a streaming table reads {}", many.join(" and ")))
            .hint("a streaming table reads one source")),
    }
}
