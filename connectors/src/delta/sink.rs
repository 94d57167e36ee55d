//! A Delta table as a sink: transactional, and idempotent by (job, run).

use super::create::{Draft, create};
use super::rules::Rules;
use super::table::{Loaded, Table};
use super::writer::TaskWriter;
use super::{commit, features, schema};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use deltalake_core::kernel::Add;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{
    Code, Commit, Error, OptionSpec, Options, Result, Sink, SinkCapabilities, SinkSpec, SinkWriter,
    WriteScope, Written, store,
};
use tidemill_engine::TableOptions;

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "partition_by",
        required: false,
        default: None,
        doc: "columns, separated by commas, that a table created by the sink is partitioned by",
    },
    OptionSpec {
        name: "target_file_size_bytes",
        required: false,
        default: Some("134217728"),
        doc: "size at which a writer begins the next file",
    },
    OptionSpec {
        name: "operation",
        required: false,
        default: None,
        doc: "what the table's history calls the commits, such as WRITE; by default epochs of a stream",
    },
    OptionSpec {
        name: "blind_append",
        required: false,
        default: Some("true"),
        doc: "with `operation`: whether the rows were made without a look at the table",
    },
    OptionSpec {
        name: "add_columns",
        required: false,
        default: None,
        doc: "columns beside the table's own that are written, as a schema of Arrow's in JSON; who commits adds them",
    },
    OptionSpec {
        name: "definition",
        required: false,
        default: None,
        doc: "what the table will be by the commit of the rows, in the words of its log; by default it is there",
    },
];

/// One Delta table; the target is its location.
#[derive(Debug)]
pub struct DeltaSink {
    table: Arc<Table>,
    partition_by: Option<Vec<String>>,
    target_file_size: NonZeroU64,
    /// Columns that the commit adds to the table.
    add_columns: Option<Schema>,
    /// What the table will be by the commit; who commits makes it so.
    draft: Option<Draft>,
    /// `None`: the rows are a stream's.
    label: Option<Label>,
}

/// What a commit says of itself in the table's history.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) operation: String,
    pub(super) is_blind: bool,
}

/// The sink of `spec`. Connects only when it is used.
pub fn sink(spec: &SinkSpec, config: &Config) -> Result<Arc<dyn Sink>> {
    let table = Table::at(&store::location(&spec.target)?, config)?;
    Ok(Arc::new(DeltaSink::new(spec, table)?))
}

impl DeltaSink {
    pub(super) fn new(spec: &SinkSpec, table: Arc<Table>) -> Result<Self> {
        let options = Options::new("delta", &spec.options, OPTIONS, |_| false)?;
        let partition_by = options.get("partition_by")?.map(|names| {
            names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        });
        let expected = "a number of bytes greater than 0";
        let target_file_size = options.parse("target_file_size_bytes", expected)?.ok_or_else(|| {
            Error::new(Code::BadOption, "`target_file_size_bytes` has no value").hint(expected)
        })?;
        let add_columns = options.get("add_columns")?.map(|text| serde_json::from_str(&text)).transpose()?;
        let draft = options.get("definition")?.map(|text| Draft::read(&text)).transpose()?;
        let is_blind = options.parse("blind_append", "true or false")?.unwrap_or(true);
        let label = options.get("operation")?.map(|operation| Label { operation, is_blind });
        Ok(Self { table, partition_by, target_file_size, add_columns, draft, label })
    }

    /// The columns of the files: the table's, and those that it gets. One that somebody else added meanwhile is
    /// there once.
    fn columns(&self, loaded: &Loaded) -> Result<SchemaRef> {
        let have = loaded.schema();
        let Some(added) = &self.add_columns else { return Ok(have) };
        let new = schema::lake_schema(added)?;
        let new = new.fields().iter().filter(|field| have.field_with_name(field.name()).is_err());
        let new = new.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        Ok(Arc::new(Schema::new(have.fields().iter().cloned().chain(new).collect::<Vec<_>>())))
    }

    async fn compare(&self, schema: &Schema) -> Result<()> {
        let loaded = self.table.demand().await?;
        let have = loaded.schema();
        features::demand_writable(loaded.snapshot(), &have)?;
        schema::compare(schema, Rules::of(loaded.snapshot(), &have)?.accepted())?;
        let partitioned = loaded.partition_columns();
        match &self.partition_by {
            Some(wanted) if *wanted != partitioned => Err(Error::new(
                Code::BadOption,
                format!(
                    "the table is partitioned by [{}], not by [{}]",
                    partitioned.join(", "),
                    wanted.join(", ")
                ),
            )
            .hint("leave `partition_by` out, or create another table")),
            _ => Ok(()),
        }
    }
}

/// What a task hands to the committer: one file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Added {
    /// Id of the table that the file was written for; one that was created anew meanwhile has another.
    pub(super) table: String,
    /// The table's rules that its rows keep.
    #[serde(default)]
    pub(super) rules: Vec<String>,
    pub(super) add: Add,
}

impl Added {
    /// Fails if the table demands more of its rows by now than it did of these.
    pub(super) fn demand(&self, rules: &[String]) -> Result<()> {
        match rules.iter().find(|rule| !self.rules.contains(rule)) {
            None => Ok(()),
            Some(rule) => {
                let message =
                    format!("the table got a rule while rows were written that do not heed it: {rule}");
                Err(Error::new(Code::Conflict, message).hint("run the statement again"))
            }
        }
    }

    pub(super) fn into_written(self) -> Result<Written> {
        let statistics = self.add.get_stats().ok().flatten();
        let rows = statistics.and_then(|statistics| u64::try_from(statistics.num_records).ok());
        Ok(Written {
            rows: rows.ok_or_else(|| Error::internal("a written file without its number of rows"))?,
            bytes: u64::try_from(self.add.size).unwrap_or_default(),
            descriptor: serde_json::to_value(self)?,
        })
    }
}

#[async_trait]
impl Sink for DeltaSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities { transactional: true, idempotent: true, upsert: false }
    }

    /// A table that is created here takes NULL everywhere: that a query cannot give one says nothing about the
    /// next query.
    async fn prepare(&self, schema: &SchemaRef) -> Result<()> {
        if self.table.newest().await?.is_none() {
            let nullable: Vec<Field> =
                schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
            let options = TableOptions {
                partition_by: self.partition_by.clone().unwrap_or_default(),
                ..TableOptions::default()
            };
            match create(&self.table, &Schema::new(nullable), &options).await {
                Err(error) if error.code != Code::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        self.compare(schema).await.map_err(|error| error.context(format!("Delta table {}", self.table.url)))
    }

    async fn writer(&self, _: &WriteScope, schema: &SchemaRef) -> Result<Box<dyn SinkWriter>> {
        let loaded = match &self.draft {
            Some(draft) => draft.loaded().await?,
            // Another process may have altered the table since this one looked at it last.
            None => self.table.demand().await?,
        };
        let have = self.columns(&loaded)?;
        let rules = features::demand_writable(loaded.snapshot(), &have)
            .and_then(|()| Rules::of(loaded.snapshot(), &have))
            .and_then(|rules| schema::compare(schema, rules.accepted()).map(|()| rules))
            .map_err(|error| error.context(format!("Delta table {}", self.table.url)))?;
        Ok(Box::new(TaskWriter::new(self.table.clone(), &loaded, rules, self.target_file_size)))
    }

    async fn committed(&self, job: &str) -> Result<Option<u64>> {
        match self.table.newest().await? {
            Some(loaded) => {
                let run = loaded.transaction(&self.table, job).await?;
                Ok(run.and_then(|run| u64::try_from(run).ok()))
            }
            None => Ok(None),
        }
    }

    async fn commit(&self, job: &str, run: u64, written: &[Written]) -> Result<Commit> {
        commit::commit(&self.table, job, run, written, self.label.as_ref())
            .await
            .map_err(|error| error.context(format!("Delta table {}", self.table.url)))
    }
}
