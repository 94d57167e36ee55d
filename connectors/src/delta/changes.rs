//! What changed in a table from one version to another: its change data feed.
//!
//! ```text
//! commit ─┬─ has change files        ─▶ their rows, which say themselves what they are
//!         └─ else: files added       ─▶ insert, for every row of them
//!                  files removed     ─▶ delete, for every row that was left in them
//!                  both, of one path ─▶ delete, for the rows that only the new deletion vector has
//! ```
//! Version, time and kind of a change are constants of a file, as partition values are, so what comes out are
//! scans like any other.

use super::columns::Columns;
use super::deletions::deleted_rows;
use super::files::data_path;
use super::scan::{Files, Scan};
use super::table::{Loaded, Table};
use arrow::array::{Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result as DfResult, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use deltalake_core::kernel::DeletionVectorDescriptor;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::exec::{RowRuns, SelectedFile};
use tidemill_engine::{TableVersion, from_datafusion};

const ENABLED: &str = "delta.enableChangeDataFeed";
/// Commits that are read at once.
const AT_ONCE: usize = 8;

#[derive(Debug)]
pub(super) struct Changes {
    schema: SchemaRef,
    /// Change files, which have the kind of a change in a column.
    telling: Scan,
    told: Vec<PartitionedFile>,
    /// Data files, of which all rows are of one kind.
    silent: Scan,
    whole: Vec<PartitionedFile>,
    selected: Vec<SelectedFile>,
}

/// One line of a commit, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line {
    add: Option<Action>,
    remove: Option<Action>,
    cdc: Option<Action>,
    meta_data: Option<Metadata>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    configuration: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    path: String,
    #[serde(default)]
    partition_values: BTreeMap<String, Option<String>>,
    size: Option<u64>,
    #[serde(default)]
    data_change: bool,
    deletion_vector: Option<DeletionVectorDescriptor>,
    stats: Option<String>,
}

/// What all rows of a file share.
#[derive(Clone, Copy)]
struct Commit {
    version: u64,
    millis: i64,
}

impl Table {
    /// All changes from `from` to `to`, both included, in the columns of the newest of these versions.
    pub(super) async fn changes(&self, from: TableVersion, to: Option<TableVersion>) -> Result<Changes> {
        let newest = self.demand().await?;
        let first = self.first_at(&newest, from).await?;
        let last = match to {
            None => newest.clone(),
            Some(to) => self.version(to).await?,
        };
        let at_first = self.version(TableVersion::Number(first)).await?;
        if first > last.version() {
            let message = format!("changes from version {first} to {} are none", last.version());
            return Err(Error::new(Code::InvalidStatement, message).hint("give the older version first"));
        }
        for loaded in [&at_first, &last] {
            let configuration = loaded.snapshot().metadata().configuration();
            self.demand_enabled(loaded.version(), configuration.get(ENABLED).map(String::as_str))?;
        }
        let times = self.commit_times(&newest, first..=last.version()).await?;
        let versions = stream::iter(first..=last.version()).map(|version| self.lines(version));
        let commits: Vec<Vec<Line>> = versions.buffered(AT_ONCE).try_collect().await?;
        let mut changes = Changes::none(self, &last)?;
        let columns = Columns::of(&last)?;
        for (version, lines) in (first..).zip(commits) {
            let commit = Commit { version, millis: times.get(&version).copied().unwrap_or_default() };
            self.add_commit(&mut changes, &columns, commit, lines).await?;
        }
        Ok(changes)
    }

    fn demand_enabled(&self, version: u64, value: Option<&str>) -> Result<()> {
        if value.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(());
        }
        let message = format!("version {version} of the table has no change data feed");
        Err(Error::new(Code::Unsupported, message)
            .hint(format!("changes are recorded from the commit on that sets {ENABLED} = true"))
            .context(format!("Delta table {}", self.url)))
    }

    async fn lines(&self, version: u64) -> Result<Vec<Line>> {
        let fail = |error| super::error::from_delta(error, &self.url);
        let entry = self.log_store.read_commit_entry(version).await.map_err(fail)?.ok_or_else(|| {
            Error::new(Code::NotFound, format!("the log has no commit {version} any more"))
                .context(format!("Delta table {}", self.url))
        })?;
        let lines = entry.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(serde_json::from_slice).collect::<std::result::Result<_, _>>()?)
    }

    async fn add_commit(
        &self,
        changes: &mut Changes,
        columns: &Columns,
        commit: Commit,
        lines: Vec<Line>,
    ) -> Result<()> {
        let (mut added, mut removed) = (BTreeMap::new(), BTreeMap::new());
        let mut told = Vec::new();
        for line in lines {
            if let Some(metadata) = line.meta_data {
                self.demand_enabled(commit.version, metadata.configuration.get(ENABLED).map(String::as_str))?;
            }
            told.extend(line.cdc);
            added.extend(line.add.filter(|add| add.data_change).map(|add| (add.path.clone(), add)));
            removed.extend(line.remove.filter(|file| file.data_change).map(|file| (file.path.clone(), file)));
        }
        if !told.is_empty() {
            for action in told {
                let values = partition_values(columns, &action)?.into_iter().chain(commit.values());
                let file = self.file(&action, values.collect(), &changes.telling).await?;
                changes.told.push(file);
            }
            return Ok(());
        }
        for (path, add) in &added {
            let before = removed.remove(path);
            let new = self.deleted(add).await?;
            match before {
                None => self.push(changes, columns, commit, "insert", add, all_but(add, &new)?).await?,
                Some(before) => {
                    let old = self.deleted(&before).await?;
                    let gone: BTreeSet<u64> = new.difference(&old).copied().collect();
                    let back: BTreeSet<u64> = old.difference(&new).copied().collect();
                    for (kind, rows) in [("delete", gone), ("insert", back)] {
                        if !rows.is_empty() {
                            let rows = Some(RowRuns::without(rows, rows_of(add)?)?.inverted());
                            self.push(changes, columns, commit, kind, add, rows).await?;
                        }
                    }
                }
            }
        }
        for remove in removed.values() {
            let rows = all_but(remove, &self.deleted(remove).await?)?;
            self.push(changes, columns, commit, "delete", remove, rows).await?;
        }
        Ok(())
    }

    async fn deleted(&self, action: &Action) -> Result<BTreeSet<u64>> {
        match &action.deletion_vector {
            None => Ok(BTreeSet::new()),
            Some(vector) => {
                let rows = deleted_rows(&self.log_store, &self.url, vector.clone()).await?;
                Ok(rows.into_iter().collect())
            }
        }
    }

    async fn push(
        &self,
        changes: &mut Changes,
        columns: &Columns,
        commit: Commit,
        kind: &str,
        action: &Action,
        rows: Option<RowRuns>,
    ) -> Result<()> {
        let mut values = partition_values(columns, action)?;
        values.push(ScalarValue::Utf8(Some(kind.to_owned())));
        values.extend(commit.values());
        let file = self.file(action, values, &changes.silent).await?;
        match rows {
            Some(rows) => changes.selected.push(SelectedFile { file, rows }),
            None => changes.whole.push(file),
        }
        Ok(())
    }

    async fn file(&self, action: &Action, values: Vec<ScalarValue>, scan: &Scan) -> Result<PartitionedFile> {
        let relative = Path::from_url_path(&action.path)
            .map_err(|error| Error::new(Code::Corrupt, format!("`{}`: {error}", action.path)))?;
        let location = data_path(self, &relative)?;
        let size = match action.size {
            Some(size) => size,
            None => self.log_store.object_store(None).head(&relative).await?.size,
        };
        let last_modified = chrono::DateTime::UNIX_EPOCH;
        let meta = ObjectMeta { location, last_modified, size, e_tag: None, version: None };
        let mut file = PartitionedFile::new_from_meta(meta).with_partition_values(values);
        file.statistics = Some(Arc::new(Statistics::new_unknown(scan.schema.table_schema())));
        Ok(file)
    }
}

impl Commit {
    fn values(self) -> [ScalarValue; 2] {
        let version = i64::try_from(self.version).ok();
        let micros = self.millis.saturating_mul(1_000);
        [ScalarValue::Int64(version), ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))]
    }
}

/// The rows of a file that are left; `None` for all.
fn all_but(action: &Action, deleted: &BTreeSet<u64>) -> Result<Option<RowRuns>> {
    match deleted.is_empty() {
        true => Ok(None),
        false => RowRuns::without(deleted.iter().copied(), rows_of(action)?).map(Some),
    }
}

fn rows_of(action: &Action) -> Result<u64> {
    let stats = action.stats.as_deref().map(serde_json::from_str::<serde_json::Value>).transpose()?;
    stats.and_then(|stats| stats["numRecords"].as_u64()).ok_or_else(|| {
        let message =
            format!("`{}` has a deletion vector and does not say how many rows it has", action.path);
        Error::new(Code::Corrupt, message)
    })
}

/// In the log's order, as the table's columns have them.
fn partition_values(columns: &Columns, action: &Action) -> Result<Vec<ScalarValue>> {
    let fields = columns.partition_fields();
    let values = fields.iter().map(|field| {
        // The protocol has NULL as no text, or as an empty one.
        let text = action.partition_values.get(field.name()).cloned().flatten();
        let text = StringArray::from(vec![text.filter(|text| !text.is_empty())]);
        let value = cast(&text, field.data_type())?;
        if value.is_null(0) && text.is_valid(0) {
            let message = format!("`{}` is no value of partition column `{}`", text.value(0), field.name());
            return Err(Error::new(Code::Corrupt, message));
        }
        ScalarValue::try_from_array(&value, 0).map_err(from_datafusion)
    });
    values.collect()
}

impl Changes {
    fn none(table: &Table, last: &Loaded) -> Result<Self> {
        super::features::demand_readable(last.snapshot())
            .map_err(|error| error.context(format!("Delta table {}", table.url)))?;
        let columns = Columns::of(last)?;
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
        let kind: FieldRef = field("_change_type", DataType::Utf8);
        let constant = vec![
            field("_commit_version", DataType::Int64),
            field("_commit_timestamp", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ];
        let mut fields: Vec<FieldRef> = columns.schema.fields().iter().cloned().collect();
        fields.push(kind.clone());
        fields.extend(constant.clone());
        let schema = Arc::new(Schema::new(fields));
        let all = [vec![kind.clone()], constant.clone()].concat();
        Ok(Self {
            telling: Scan::new(&table.url, &columns, vec![kind], constant, schema.clone())?,
            silent: Scan::new(&table.url, &columns, Vec::new(), all, schema.clone())?,
            schema,
            told: Vec::new(),
            whole: Vec::new(),
            selected: Vec::new(),
        })
    }
}

#[async_trait]
impl TableProvider for Changes {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files = |whole: &[PartitionedFile], selected: &[SelectedFile]| Files {
            whole: whole.to_vec(),
            selected: selected.to_vec(),
            statistics: None,
            cut: false,
        };
        let mut plans = Vec::new();
        if !self.told.is_empty() {
            plans.push(self.telling.plan(state, files(&self.told, &[]), projection, limit).await?);
        }
        if !self.whole.is_empty() || !self.selected.is_empty() {
            let files = files(&self.whole, &self.selected);
            plans.push(self.silent.plan(state, files, projection, limit).await?);
        }
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?))),
            1 => Ok(plans.swap_remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}
