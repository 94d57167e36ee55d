//! A snapshot as a table of the query engine: a scan is a plain `DataSourceExec` over Parquet files, as for a
//! folder of Parquet files, so every engine can split it and send it.
//!
//! ```text
//! filters ─┬─ over partition columns only ─▶ evaluated over the partition values: exact
//!          └─ others ─▶ files dropped by their bounds ─▶ pushed into the Parquet reader, and kept above it
//! ```

use super::files::FileList;
use super::table::{Loaded, Table};
use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::{ParquetFormat, transform_schema_to_view};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
use datafusion::datasource::table_schema::{TableSchema, TableSchemaBuilder};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::expr_rewriter::unnormalize_cols;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use std::sync::Arc;
use tidemill_core::Result;
use tidemill_engine::from_datafusion;
use url::Position;

#[derive(Debug)]
pub(super) struct DeltaProvider {
    /// In the table's own order.
    schema: SchemaRef,
    /// Columns of the files, then partition columns: the order of a scan.
    scan_schema: TableSchema,
    /// For each column of `schema` its place in the scan.
    places: Vec<usize>,
    files: FileList,
    store: ObjectStoreUrl,
    statistics: Statistics,
}

impl DeltaProvider {
    pub(super) fn new(table: &Table, loaded: &Loaded) -> Result<Self> {
        let partition_columns = loaded.partition_columns();
        let schema = query_schema(&loaded.schema());
        let in_files = |field: &&Arc<Field>| !partition_columns.contains(field.name());
        let file_schema =
            Arc::new(Schema::new(schema.fields().iter().filter(in_files).cloned().collect::<Vec<_>>()));
        let partition_fields = partition_columns
            .iter()
            .map(|name| Ok(Arc::new(schema.field_with_name(name)?.clone())))
            .collect::<Result<Vec<_>>>()?;
        let partition_schema = Arc::new(Schema::new(partition_fields.clone()));
        let files = FileList::new(table, loaded, &file_schema, &partition_schema)?;
        let scan_schema =
            TableSchemaBuilder::new(file_schema).with_table_partition_cols(partition_fields).build();
        let whole = scan_schema.table_schema();
        let places =
            schema.fields().iter().map(|field| Ok(whole.index_of(field.name())?)).collect::<Result<_>>()?;
        let store = ObjectStoreUrl::parse(&table.url[..Position::BeforePath]).map_err(from_datafusion)?;
        let statistics = merge(&files.files, whole).map_err(from_datafusion)?;
        Ok(Self { schema, scan_schema, places, files, store, statistics })
    }

    /// Whether a filter can be decided by the partition values alone.
    fn is_on_partitions(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        let partitions = self.files.partitions.schema();
        !columns.is_empty()
            && !filter.is_volatile()
            && columns.iter().all(|column| partitions.column_with_name(&column.name).is_some())
    }

    /// Which files may hold rows that pass all filters, as they stand in a statement.
    pub(super) fn matching(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<bool>> {
        let plain = unnormalize_cols(filters.iter().filter(|filter| is_decidable(filter)).cloned());
        self.prune(state, &plain).map_err(from_datafusion)
    }

    /// Whether a filter, as it stands in a statement, holds for all rows of a file or for none.
    pub(super) fn decides(&self, filter: &Expr) -> bool {
        is_decidable(filter) && self.is_on_partitions(filter)
    }

    /// The partition values of a file.
    pub(super) fn partition(&self, number: usize) -> DfResult<Vec<ScalarValue>> {
        let columns = self.files.partitions.columns().iter();
        columns.map(|values| ScalarValue::try_from_array(values, number)).collect()
    }

    /// The table made of some files, `None` for all, with the files' numbers as one more column at its end.
    pub(super) fn select(&self, files: Option<&[usize]>, number_column: Option<&str>) -> Result<Self> {
        let all: Vec<usize> = (0..self.files.files.len()).collect();
        let numbers = files.unwrap_or(&all);
        let files = self.files.select(numbers, number_column)?;
        let mut fields: Vec<Arc<Field>> = self.schema.fields().iter().cloned().collect();
        let mut partition_fields: Vec<Arc<Field>> = self.scan_schema.table_partition_cols().to_vec();
        let mut places = self.places.clone();
        if let Some(name) = number_column {
            let field = Arc::new(Field::new(name, DataType::Int64, false));
            places.push(fields.len());
            fields.push(field.clone());
            partition_fields.push(field);
        }
        let scan_schema = TableSchemaBuilder::new(self.scan_schema.file_schema().clone())
            .with_table_partition_cols(partition_fields)
            .build();
        let statistics = merge(&files.files, scan_schema.table_schema()).map_err(from_datafusion)?;
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { schema, scan_schema, places, files, store: self.store.clone(), statistics })
    }

    /// Which files may hold rows that pass all filters.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> DfResult<Vec<bool>> {
        let mut keep = vec![true; self.files.files.len()];
        if keep.is_empty() {
            return Ok(keep);
        }
        let (on_partitions, others): (Vec<Expr>, Vec<Expr>) =
            filters.iter().cloned().partition(|filter| self.is_on_partitions(filter));
        if let Some(filter) = conjunction(on_partitions) {
            let schema = DFSchema::try_from(self.files.partitions.schema())?;
            let filter = state.create_physical_expr(filter, &schema)?;
            let passed = filter.evaluate(&self.files.partitions)?.into_array(keep.len())?;
            let passed: &BooleanArray = passed.as_boolean();
            for (keep, passed) in keep.iter_mut().zip(passed) {
                *keep = passed.unwrap_or(false);
            }
        }
        if let Some(filter) = conjunction(others) {
            let schema = DFSchema::try_from(self.schema.clone())?;
            let filter = state.create_physical_expr(filter, &schema)?;
            let predicate =
                PruningPredicateBuilder::new().with_file_schema(self.schema.clone()).try_build(filter)?;
            if !predicate.always_true() {
                for (keep, may_match) in keep.iter_mut().zip(predicate.prune(&self.files)?) {
                    *keep &= may_match;
                }
            }
        }
        Ok(keep)
    }
}

#[async_trait]
impl TableProvider for DeltaProvider {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn statistics(&self) -> Option<Statistics> {
        let column =
            |place: &usize| self.statistics.column_statistics.get(*place).cloned().unwrap_or_default();
        Some(Statistics {
            num_rows: self.statistics.num_rows,
            total_byte_size: self.statistics.total_byte_size,
            column_statistics: self.places.iter().map(column).collect(),
        })
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let pushdown = |filter: &&Expr| match self.is_on_partitions(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushdown).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let keep = self.prune(state, filters)?;
        let mut files: Vec<PartitionedFile> = self
            .files
            .files
            .iter()
            .zip(&keep)
            .filter(|(_, keep)| **keep)
            .map(|(file, _)| file.clone())
            .collect();
        let mut cut = false;
        if let Some(limit) = limit
            && filters.iter().all(|filter| self.is_on_partitions(filter))
        {
            let enough = enough_files(&files, limit);
            cut = enough < files.len();
            files.truncate(enough);
        }
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(project_schema(&self.schema, projection)?)));
        }
        let whole = self.scan_schema.table_schema();
        let mut statistics = match files.len() == self.files.files.len() {
            true => self.statistics.clone(),
            false => merge(&files, whole)?,
        };
        if cut {
            statistics = statistics.to_inexact();
        }
        let groups = FileGroup::new(files)
            .split_files(state.config().target_partitions())
            .into_iter()
            .map(|group| {
                let statistics = merge(group.files(), whole)?;
                Ok(group.with_statistics(Arc::new(statistics)))
            })
            .collect::<DfResult<Vec<_>>>()?;
        let columns: Vec<usize> = match projection {
            Some(columns) => columns.iter().filter_map(|column| self.places.get(*column).copied()).collect(),
            None => self.places.clone(),
        };
        let format = ParquetFormat::default().with_options(state.default_table_options().parquet);
        let source = format.file_source(self.scan_schema.clone());
        let scan = FileScanConfigBuilder::new(self.store.clone(), source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(columns))?
            .with_limit(limit)
            .build();
        format.create_physical_plan(state, scan).await
    }
}

/// Whether a filter says something about a row by itself.
fn is_decidable(filter: &Expr) -> bool {
    let open = filter.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
        ))
    });
    !filter.is_volatile() && !open.unwrap_or(true)
}

/// The table's columns as DataFusion reads Parquet: text and bytes as views. Delta's marks in the metadata of
/// fields are left out, as they would make equal types differ.
fn query_schema(schema: &Schema) -> SchemaRef {
    let plain: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), field.is_nullable()))
        .collect();
    Arc::new(transform_schema_to_view(&Schema::new(plain)))
}

fn merge(files: &[PartitionedFile], schema: &Schema) -> DfResult<Statistics> {
    if files.is_empty() {
        let mut none = Statistics::new_unknown(schema);
        none.num_rows = Precision::Exact(0);
        return Ok(none);
    }
    Statistics::try_merge_iter(files.iter().filter_map(|file| file.statistics.as_deref()), schema)
}

/// How many of the first files hold at least `limit` rows for certain.
fn enough_files(files: &[PartitionedFile], limit: usize) -> usize {
    let mut rows = 0_usize;
    for (index, file) in files.iter().enumerate() {
        if rows >= limit {
            return index;
        }
        match file.statistics.as_ref().map(|statistics| statistics.num_rows) {
            Some(Precision::Exact(more)) => rows = rows.saturating_add(more),
            _ => return files.len(),
        }
    }
    files.len()
}
