//! From data files to a plan that reads them: a plain scan for files that count whole, `SelectRowsExec` for
//! those of which rows are deleted, and the columns' own names above both.

use super::columns::Columns;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{Result as DfResult, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use std::sync::Arc;
use tidemill_core::Result;
use tidemill_engine::exec::{RelabelExec, SelectRowsExec, SelectedFile};
use tidemill_engine::{from_datafusion, to_datafusion};
use url::{Position, Url};

/// How files of one kind are read.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    store: ObjectStoreUrl,
    /// Columns of the files, then partition columns, by physical names.
    pub(super) schema: TableSchema,
    /// For each column that a query sees its place in the scan.
    places: Vec<usize>,
    /// The columns that a query sees.
    logical: SchemaRef,
    mapped: bool,
}

/// What one query reads.
pub(super) struct Files {
    pub(super) whole: Vec<PartitionedFile>,
    pub(super) selected: Vec<SelectedFile>,
    /// Of the whole files, where they are known already.
    pub(super) statistics: Option<Statistics>,
    /// Files are left out, because the others have rows enough.
    pub(super) cut: bool,
}

impl Scan {
    /// `in_files` and `constant` are columns that a change data feed has besides the table's own: in its files,
    /// and the same in all rows of a file.
    pub(super) fn new(
        table: &Url,
        columns: &Columns,
        in_files: Vec<FieldRef>,
        constant: Vec<FieldRef>,
        logical: SchemaRef,
    ) -> Result<Self> {
        let mut file_fields = columns.file_schema().fields().to_vec();
        let shift = in_files.len();
        let own = file_fields.len();
        file_fields.extend(in_files);
        let mut partition_fields = columns.partition_fields();
        partition_fields.extend(constant);
        let schema = TableSchemaBuilder::new(Arc::new(Schema::new(file_fields)))
            .with_table_partition_cols(partition_fields)
            .build();
        let mut places: Vec<usize> = columns
            .places_in_scan()
            .into_iter()
            .map(|place| if place < own { place } else { place + shift })
            .collect();
        for field in &logical.fields()[places.len()..] {
            places.push(schema.table_schema().index_of(field.name())?);
        }
        let store = ObjectStoreUrl::parse(&table[..Position::BeforePath]).map_err(from_datafusion)?;
        Ok(Self { store, schema, places, logical, mapped: columns.are_mapped() })
    }

    /// With one more column at the end, which has the same value in all rows of a file.
    pub(super) fn with_constant(&self, field: FieldRef) -> Self {
        let mut partition_fields = self.schema.table_partition_cols().to_vec();
        partition_fields.push(field.clone());
        let mut places = self.places.clone();
        places.push(self.schema.table_schema().fields().len());
        let logical: Vec<FieldRef> = self.logical.fields().iter().cloned().chain([field]).collect();
        Self {
            store: self.store.clone(),
            schema: TableSchemaBuilder::new(self.schema.file_schema().clone())
                .with_table_partition_cols(partition_fields)
                .build(),
            places,
            logical: Arc::new(Schema::new(logical)),
            mapped: self.mapped,
        }
    }

    /// The columns that a query sees.
    pub(super) fn logical(&self) -> &SchemaRef {
        &self.logical
    }

    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    pub(super) async fn plan(
        &self,
        state: &dyn Session,
        files: Files,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Files { whole, selected, statistics, cut } = files;
        let partitions = state.config().target_partitions();
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        let finish = |statistics: Statistics| if cut { statistics.to_inexact() } else { statistics };
        if !whole.is_empty() {
            let statistics = match statistics {
                Some(statistics) => statistics,
                None => merge(&whole, self.schema.table_schema())?,
            };
            let groups = FileGroup::new(whole)
                .split_files(partitions)
                .into_iter()
                .map(|group| {
                    let statistics = merge(group.files(), self.schema.table_schema())?;
                    Ok(group.with_statistics(Arc::new(statistics)))
                })
                .collect::<DfResult<Vec<_>>>()?;
            let (format, scan) = self.builder(state, finish(statistics), projection, limit)?;
            plans.push(format.create_physical_plan(state, scan.with_file_groups(groups).build()).await?);
        }
        if !selected.is_empty() {
            let files: Vec<PartitionedFile> = selected.iter().map(|selected| selected.file.clone()).collect();
            let statistics = merge(&files, self.schema.table_schema())?;
            let (_, scan) = self.builder(state, finish(statistics), projection, limit)?;
            let groups = dealt(selected, partitions);
            plans.push(Arc::new(SelectRowsExec::read(scan.build(), &groups).map_err(to_datafusion)?));
        }
        let plan = match plans.len() {
            1 => plans.swap_remove(0),
            _ => UnionExec::try_new(plans)?,
        };
        if !self.mapped {
            return Ok(plan);
        }
        let schema = datafusion::common::project_schema(&self.logical, projection)?;
        Ok(Arc::new(RelabelExec::new(schema, plan).map_err(to_datafusion)?))
    }

    fn builder(
        &self,
        state: &dyn Session,
        statistics: Statistics,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DfResult<(ParquetFormat, FileScanConfigBuilder)> {
        let columns: Vec<usize> = match projection {
            Some(columns) => columns.iter().filter_map(|column| self.places.get(*column).copied()).collect(),
            None => self.places.clone(),
        };
        let format = ParquetFormat::default().with_options(state.default_table_options().parquet);
        let source = format.file_source(self.schema.clone());
        let scan = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_statistics(statistics)
            .with_projection_indices(Some(columns))?
            .with_limit(limit);
        Ok((format, scan))
    }
}

/// Deals files out to at most `groups` groups of about the same size, the largest files first.
fn dealt(mut files: Vec<SelectedFile>, groups: usize) -> Vec<Vec<SelectedFile>> {
    files.sort_by_key(|selected| std::cmp::Reverse(selected.file.object_meta.size));
    let mut dealt = vec![(0_u64, Vec::new()); groups.clamp(1, files.len().max(1))];
    for file in files {
        if let Some((bytes, group)) = dealt.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.file.object_meta.size;
            group.push(file);
        }
    }
    dealt.into_iter().map(|(_, group)| group).filter(|group| !group.is_empty()).collect()
}

pub(super) fn merge(files: &[PartitionedFile], schema: &Schema) -> DfResult<Statistics> {
    if files.is_empty() {
        let mut none = Statistics::new_unknown(schema);
        none.num_rows = Precision::Exact(0);
        return Ok(none);
    }
    Statistics::try_merge_iter(files.iter().filter_map(|file| file.statistics.as_deref()), schema)
}
