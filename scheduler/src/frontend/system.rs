//! The content of the schema `tidemill`: what runs, and what it has done.

use super::definitions::Definitions;
use super::jobs::Jobs;
use crate::admission::Lane;
use crate::cluster::Executors;
use crate::loads::Loads;
use crate::pipelines::{PipelineView, Pipelines, Status};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use std::sync::{Arc, OnceLock};
use tidemill_core::{Error, Result};
use tidemill_sql::DEFAULT_SCHEMA;
use tidemill_sql::catalog::SystemTables;
use tidemill_sql::functions::everyday;
use tidemill_sql::statement::{ConnectionDef, FunctionDef, SourceDef, Trigger};

/// Type of a column, by what it holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Count,
    Number,
    Time,
}

use Kind::{Count, Number, Text, Time};

/// Every table with its columns. A new one is a line here and an arm in [`System::batch`].
const TABLES: &[(&str, &[(&str, Kind)])] = &[
    ("connections", &[("name", Text), ("connector", Text), ("options", Text)]),
    (
        "epochs",
        &[
            ("pipeline", Text),
            ("epoch", Count),
            ("finished_at", Time),
            ("duration_ms", Count),
            ("read", Count),
            ("dead_letters", Count),
            ("dropped", Count),
            ("late", Count),
            ("duplicates", Count),
            ("accepted", Count),
            ("written", Count),
            ("watermark", Time),
            ("tries", Count),
        ],
    ),
    ("executors", &[("id", Text), ("url", Text), ("vcores", Count), ("build", Text), ("silent_ms", Count)]),
    ("functions", &[("name", Text), ("kind", Text), ("usage", Text), ("definition", Text), ("schema", Text)]),
    (
        "jobs",
        &[
            ("id", Text),
            ("user", Text),
            ("sql", Text),
            ("engine", Text),
            ("reason", Text),
            ("priority", Text),
            ("lane", Text),
            ("status", Text),
            ("queued_at", Time),
            ("started_at", Time),
            ("finished_at", Time),
            ("rows", Count),
            ("stages", Count),
            ("stages_done", Count),
            ("tasks", Count),
            ("tasks_done", Count),
            ("rows_read", Count),
            ("bytes_read", Count),
            ("expected_bytes", Count),
            ("spilled_bytes", Count),
            ("error_code", Text),
            ("error", Text),
        ],
    ),
    (
        "lag",
        &[("pipeline", Text), ("split", Text), ("position", Number), ("latest", Number), ("lag", Number)],
    ),
    (
        "load_runs",
        &[
            ("load", Text),
            ("run", Count),
            ("from", Time),
            ("to", Time),
            ("status", Text),
            ("rows", Count),
            ("counted", Count),
            ("bytes", Count),
            ("started_at", Time),
            ("finished_at", Time),
            ("error", Text),
        ],
    ),
    (
        "loads",
        &[
            ("name", Text),
            ("connection", Text),
            ("target", Text),
            ("schedule", Text),
            ("time_zone", Text),
            ("status", Text),
            ("next_run", Time),
            ("query", Text),
        ],
    ),
    (
        "pipelines",
        &[
            ("name", Text),
            ("status", Text),
            ("trigger", Text),
            ("epoch", Count),
            ("read", Count),
            ("dead_letters", Count),
            ("dropped", Count),
            ("late", Count),
            ("duplicates", Count),
            ("accepted", Count),
            ("written", Count),
            ("watermark", Time),
            ("state_rows", Count),
            ("state_bytes", Count),
            ("error", Text),
        ],
    ),
    ("sources", &[("name", Text), ("connector", Text), ("watermark", Text), ("columns", Text)]),
    (
        "tasks",
        &[
            ("job", Text),
            ("stage", Count),
            ("task", Count),
            ("rows_read", Count),
            ("bytes_read", Count),
            ("spilled_bytes", Count),
            ("compute_ms", Count),
        ],
    ),
];

fn schema_of(name: &str) -> Option<SchemaRef> {
    let (_, columns) = TABLES.iter().find(|(table, _)| *table == name)?;
    let fields = columns.iter().map(|(column, kind)| {
        let data_type = match kind {
            Text => DataType::Utf8,
            Count => DataType::UInt64,
            Number => DataType::Int64,
            Time => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        };
        Field::new(*column, data_type, true)
    });
    Some(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// One value of a row.
enum Value {
    Text(Option<String>),
    Count(Option<u64>),
    Number(Option<i64>),
    Time(Option<i64>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Value::Count(Some(count))
    }
}

impl From<Option<u64>> for Value {
    fn from(count: Option<u64>) -> Self {
        Value::Count(count)
    }
}

/// Everything that system tables tell of.
#[derive(Debug)]
pub(super) struct System {
    pub(super) definitions: Definitions,
    pub(super) jobs: Jobs,
    pub(super) pipelines: Arc<Pipelines>,
    pub(super) executors: Option<Arc<Executors>>,
    /// Set once the loads have started: they are planned over a catalog that has these tables.
    pub(super) loads: OnceLock<Arc<Loads>>,
}

#[async_trait]
impl SystemTables for System {
    fn names(&self) -> Vec<String> {
        TABLES.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    fn schema(&self, name: &str) -> Option<SchemaRef> {
        schema_of(name)
    }

    async fn batch(&self, name: &str) -> Result<RecordBatch> {
        let rows = match name {
            "connections" => self.connections().await?,
            "epochs" => self.epochs(),
            "executors" => self.executors(),
            "functions" => self.functions().await?,
            "jobs" => self.jobs(),
            "lag" => self.lag(),
            "load_runs" => self.load_runs().await?,
            "loads" => self.loads().await?,
            "pipelines" => self.pipelines(),
            "sources" => self.sources().await?,
            "tasks" => self.tasks(),
            other => return Err(Error::internal(format!("no system table `{other}`"))),
        };
        let schema = schema_of(name).ok_or_else(|| Error::internal(format!("no system table `{name}`")))?;
        to_batch(schema, rows)
    }
}

impl System {
    fn pipelines(&self) -> Vec<Vec<Value>> {
        let row = |view: PipelineView| {
            let last = view.last.as_ref();
            let totals = last.map(|manifest| manifest.totals).unwrap_or_default();
            let files = || last.iter().flat_map(|manifest| &manifest.state).flat_map(|state| &state.files);
            let error = match (&view.record.status, &view.trouble) {
                (Status::Failed(error), _) => Some(error.to_string()),
                (_, trouble) => trouble.as_ref().map(ToString::to_string),
            };
            vec![
                short(&view.record.name).into(),
                view.record.status.name().into(),
                trigger(view.record.trigger()).into(),
                last.map_or(0, |manifest| manifest.epoch.0).into(),
                totals.read.into(),
                totals.dead_letters.into(),
                totals.dropped.into(),
                totals.late.into(),
                totals.duplicates.into(),
                totals.accepted.into(),
                totals.written.into(),
                Value::Time(watermark(last.and_then(|manifest| manifest.watermark_ms))),
                files().map(|file| file.rows).sum::<u64>().into(),
                files().map(|file| file.bytes).sum::<u64>().into(),
                error.into(),
            ]
        };
        self.pipelines.list().into_iter().map(row).collect()
    }

    fn epochs(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        for view in self.pipelines.list() {
            for epoch in &view.history {
                rows.push(vec![
                    short(&view.record.name).into(),
                    epoch.epoch.0.into(),
                    Value::Time(Some(epoch.finished_at_ms)),
                    epoch.duration_ms.into(),
                    epoch.counts.read.into(),
                    epoch.counts.dead_letters.into(),
                    epoch.counts.dropped.into(),
                    epoch.counts.late.into(),
                    epoch.counts.duplicates.into(),
                    epoch.counts.accepted.into(),
                    epoch.counts.written.into(),
                    Value::Time(watermark(epoch.watermark_ms)),
                    u64::from(epoch.tries).into(),
                ]);
            }
        }
        rows
    }

    fn lag(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        for view in self.pipelines.list() {
            for (split, available) in &view.available {
                let read = view.last.as_ref().and_then(|manifest| manifest.positions.get(split));
                let position = read.or(view.record.start.get(split)).copied().unwrap_or(available.earliest);
                rows.push(vec![
                    short(&view.record.name).into(),
                    split.as_str().into(),
                    Value::Number(Some(position)),
                    Value::Number(Some(available.latest)),
                    Value::Number(Some((available.latest - position).max(0))),
                ]);
            }
        }
        rows
    }

    fn jobs(&self) -> Vec<Vec<Value>> {
        let row = |job: super::jobs::JobView| {
            let progress = job.progress;
            vec![
                job.id.as_str().into(),
                job.user.into(),
                job.sql.into(),
                job.engine.as_str().into(),
                job.reason.into(),
                job.priority.as_str().into(),
                match job.lane {
                    Lane::Light => "light",
                    Lane::Heavy => "heavy",
                }
                .into(),
                job.status.as_str().into(),
                Value::Time(Some(job.queued_at_ms)),
                Value::Time(job.started_at_ms),
                Value::Time(job.finished_at_ms),
                job.rows.into(),
                u64::from(progress.stages).into(),
                u64::from(progress.stages_done).into(),
                u64::from(progress.tasks).into(),
                u64::from(progress.tasks_done).into(),
                progress.rows.into(),
                progress.bytes.into(),
                job.expected_bytes.into(),
                progress.spilled.into(),
                job.error.as_ref().map(|error| error.code.to_string()).into(),
                job.error.map(|error| error.to_string()).into(),
            ]
        };
        self.jobs.list().into_iter().map(row).collect()
    }

    fn tasks(&self) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        for job in self.jobs.list() {
            for task in &job.tasks {
                rows.push(vec![
                    job.id.as_str().into(),
                    task.stage.into(),
                    task.task.into(),
                    task.measured.map(|measured| measured.rows).into(),
                    task.measured.map(|measured| measured.bytes).into(),
                    task.measured.map(|measured| measured.spilled).into(),
                    task.measured.map(|measured| measured.compute_ns / 1_000_000).into(),
                ]);
            }
        }
        rows
    }

    fn executors(&self) -> Vec<Vec<Value>> {
        let alive = self.executors.as_ref().map(|executors| executors.alive()).unwrap_or_default();
        let row = |(member, silent): (tidemill_engine::pipelined::Member, std::time::Duration)| {
            vec![
                member.id.as_str().into(),
                member.url.to_string().into(),
                (member.vcores as u64).into(),
                member.build.into(),
                (silent.as_millis() as u64).into(),
            ]
        };
        alive.into_iter().map(row).collect()
    }

    async fn loads(&self) -> Result<Vec<Vec<Value>>> {
        let Some(loads) = self.loads.get() else { return Ok(Vec::new()) };
        let now = chrono::Utc::now();
        let mut rows = Vec::new();
        for load in loads.list().await? {
            let next = load.next_fire(now)?.map(|time| time.timestamp_millis());
            let schedule = load.spec.schedule.clone();
            rows.push(vec![
                load.spec.name.into(),
                load.spec.connection.into(),
                load.spec.sink.target.into(),
                schedule.as_ref().map(|schedule| schedule.cron.clone()).into(),
                schedule.map(|schedule| schedule.time_zone).into(),
                if load.paused { "paused" } else { "active" }.into(),
                Value::Time(next),
                load.spec.query.into(),
            ]);
        }
        Ok(rows)
    }

    async fn load_runs(&self) -> Result<Vec<Vec<Value>>> {
        let Some(loads) = self.loads.get() else { return Ok(Vec::new()) };
        let row = |run: crate::loads::RunRecord| {
            let status = run.status();
            vec![
                run.load.into(),
                run.run.into(),
                Value::Time(Some(run.interval.from.timestamp_millis())),
                Value::Time(Some(run.interval.to.timestamp_millis())),
                status.into(),
                run.rows_staged.into(),
                run.rows_counted.into(),
                run.bytes_staged.into(),
                Value::Time(Some(run.started_at.timestamp_millis())),
                Value::Time(run.finished_at.map(|time| time.timestamp_millis())),
                run.failure.map(|failure| failure.error.to_string()).into(),
            ]
        };
        Ok(loads.runs().await?.into_iter().map(row).collect())
    }

    /// The functions that were written in SQL, and those of Spark's that are; `information_schema.routines` has
    /// the built-in ones.
    async fn functions(&self) -> Result<Vec<Vec<Value>>> {
        let row = |function: FunctionDef| {
            let kind = if function.is_table() { "sql table" } else { "sql" };
            let (usage, definition) = (function.usage(), function.to_string());
            vec![
                function.name.into(),
                kind.into(),
                usage.into(),
                definition.into(),
                function.default_schema.into(),
            ]
        };
        let written = self.definitions.all::<FunctionDef>().await?.into_iter().map(row);
        let spark = everyday().into_iter().map(|(name, usage, definition)| -> Vec<Value> {
            vec![name.into(), "spark".into(), usage.into(), definition.into(), "".into()]
        });
        Ok(written.chain(spark).collect())
    }

    async fn sources(&self) -> Result<Vec<Vec<Value>>> {
        let row = |source: SourceDef| {
            let columns: Vec<String> = source
                .schema
                .fields()
                .iter()
                .map(|field| format!("{} {}", field.name(), field.data_type()))
                .collect();
            let watermark =
                source.watermark.map(|watermark| format!("{} - {} ms", watermark.column, watermark.delay_ms));
            vec![
                source.name.into(),
                source.spec.connector.into(),
                watermark.into(),
                columns.join(", ").into(),
            ]
        };
        Ok(self.definitions.all::<SourceDef>().await?.into_iter().map(row).collect())
    }

    /// Options are shown as they were written: secrets are references.
    async fn connections(&self) -> Result<Vec<Vec<Value>>> {
        let row = |connection: ConnectionDef| {
            let options: Vec<String> = connection
                .options
                .iter()
                .map(|(key, value)| format!("{key} = '{}'", veil(key, value)))
                .collect();
            vec![connection.name.into(), connection.connector.into(), options.join(", ").into()]
        };
        Ok(self.definitions.all::<ConnectionDef>().await?.into_iter().map(row).collect())
    }
}

/// A password that was written out in spite of everything is not shown.
fn veil<'a>(key: &str, value: &'a str) -> &'a str {
    let secret = ["password", "secret", "token", "key"].iter().any(|word| key.to_lowercase().contains(word));
    let reference = value.starts_with("env:") || value.starts_with("file:");
    if secret && !reference { "***" } else { value }
}

/// Names in the default schema go without it.
fn short(name: &str) -> &str {
    name.strip_prefix(DEFAULT_SCHEMA).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

/// After a drain the watermark is the end of time, which no calendar has.
fn watermark(watermark_ms: Option<i64>) -> Option<i64> {
    watermark_ms.filter(|time| *time < i64::MAX / 2)
}

fn trigger(trigger: Trigger) -> String {
    match trigger {
        Trigger::EveryMs(millis) => format!("{:?}", std::time::Duration::from_millis(millis)),
        Trigger::Continuous => "continuous".to_owned(),
        Trigger::AvailableNow => "available_now".to_owned(),
    }
}

fn to_batch(schema: SchemaRef, rows: Vec<Vec<Value>>) -> Result<RecordBatch> {
    let column = |index: usize| -> Result<ArrayRef> {
        let values = rows.iter().map(|row| row.get(index));
        let wrong = || Error::internal(format!("system table column {index} has another type"));
        Ok(match schema.field(index).data_type() {
            DataType::Utf8 => {
                let texts = values.map(|value| match value {
                    Some(Value::Text(text)) => Ok(text.as_deref()),
                    _ => Err(wrong()),
                });
                Arc::new(texts.collect::<Result<StringArray>>()?)
            }
            DataType::UInt64 => {
                let counts = values.map(|value| match value {
                    Some(Value::Count(count)) => Ok(*count),
                    _ => Err(wrong()),
                });
                Arc::new(counts.collect::<Result<UInt64Array>>()?)
            }
            DataType::Int64 => {
                let numbers = values.map(|value| match value {
                    Some(Value::Number(number)) => Ok(*number),
                    _ => Err(wrong()),
                });
                Arc::new(numbers.collect::<Result<Int64Array>>()?)
            }
            _ => {
                let times = values.map(|value| match value {
                    Some(Value::Time(time)) => Ok(*time),
                    _ => Err(wrong()),
                });
                Arc::new(times.collect::<Result<TimestampMillisecondArray>>()?.with_timezone("UTC"))
            }
        })
    };
    let columns = (0..schema.fields().len()).map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
