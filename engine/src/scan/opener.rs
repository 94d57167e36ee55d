//! Reads one file: from the cache what is there, the rest as the Parquet source does.

use super::DataCache;
use super::encoded::Encoded;
use super::filters::{EarlyFilters, Wanted};
use super::grouped::Form;
use super::late::LateRows;
use super::source::{file_columns, plain_columns};
use super::store::{self, FileId, TextsId};
use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{
    DefaultParquetFileReaderFactory, ParquetAccessPlan, ParquetFileMetrics, RowGroupAccessPlanFilter,
    apply_file_schema_type_coercions,
};
use datafusion::datasource::physical_plan::{
    FileGroup, FileOpenFuture, FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::{ProjectionExprs, Projector};
use datafusion::physical_expr::simplifier::PhysicalExprSimplifier;
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapterFactory, replace_columns_with_literals,
};
use datafusion::physical_expr_common::physical_expr::snapshot_physical_expr;
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows of a segment, fixed: columns of a row group that were decoded at different times must fit together.
const SEGMENT_ROWS: usize = 8192;

pub(super) struct Opener {
    inner: Inner,
}

#[derive(Clone)]
struct Inner {
    /// `None` when these files are read past it.
    cache: Option<Arc<DataCache>>,
    context: Arc<TaskContext>,
    /// The scan as it was, with its Parquet source.
    scan: FileScanConfig,
    store: Arc<dyn ObjectStore>,
    partition: usize,
    /// Columns that are needed of the files.
    needed: Vec<FieldRef>,
    /// The needed columns, then all partition columns.
    schema: SchemaRef,
    /// From rows of `schema` to what the scan gives.
    projector: Projector,
    /// Over rows of `schema`.
    filters: Arc<EarlyFilters>,
    /// Over what the scan gives.
    filters_of_joins: Arc<EarlyFilters>,
    batch_size: usize,
    kept: Option<Kept>,
}

/// A column is handed on as it is kept.
#[derive(Clone)]
struct Kept {
    form: Form,
    /// Among the columns of `schema`.
    place: usize,
    /// What the scan gives, by the places of `schema`.
    given: Vec<usize>,
}

impl Opener {
    pub(super) fn new(
        cache: Option<Arc<DataCache>>,
        context: Arc<TaskContext>,
        scan: FileScanConfig,
        store: Arc<dyn ObjectStore>,
        partition: usize,
    ) -> DfResult<Self> {
        let table = scan.file_source().table_schema();
        let places = file_columns(scan.file_source().as_ref());
        let needed: Vec<FieldRef> =
            places.iter().map(|place| table.file_schema().fields()[*place].clone()).collect();
        let columns: Vec<FieldRef> = needed.iter().chain(table.table_partition_cols()).cloned().collect();
        let schema = Arc::new(Schema::new(columns));
        let projection = match scan.file_source().projection() {
            Some(projection) => projection.clone(),
            None => ProjectionExprs::from_indices(
                &(0..table.table_schema().fields().len()).collect::<Vec<_>>(),
                table.table_schema(),
            ),
        };
        let (filter, in_files) = (scan.file_source().filter(), table.file_schema().fields().len());
        let partition_columns = (0..table.table_partition_cols().len()).map(|column| in_files + column);
        let of_table: Vec<Option<usize>> =
            places.iter().copied().chain(partition_columns).map(Some).collect();
        let filters = EarlyFilters::new(filter.clone(), Wanted::All, &schema, &of_table)?;
        let of_table: Vec<Option<usize>> =
            projection.iter().map(|column| column.expr.downcast_ref::<Column>().map(Column::index)).collect();
        let given = projection.project_schema(table.table_schema())?;
        let filters_of_joins = EarlyFilters::new(filter, Wanted::Dynamic, &given, &of_table)?;
        let projector =
            projection.try_map_exprs(|expr| reassign_expr_columns(expr, &schema))?.make_projector(&schema)?;
        let batch_size = context.session_config().batch_size();
        let inner = Inner {
            cache,
            context,
            scan,
            store,
            partition,
            needed,
            schema,
            projector,
            filters: Arc::new(filters),
            filters_of_joins: Arc::new(filters_of_joins),
            batch_size,
            kept: None,
        };
        Ok(Self { inner })
    }

    /// With one column of those that the scan gives in this form, where it is kept so.
    pub(super) fn handing_on(mut self, column: Option<(usize, Form)>) -> Self {
        let source = self.inner.scan.file_source();
        let places = file_columns(source.as_ref());
        let in_files = source.table_schema().file_schema().fields().len();
        let place = |column: &usize| match column.checked_sub(in_files) {
            Some(partition_column) => Some(places.len() + partition_column),
            None => places.iter().position(|place| place == column),
        };
        let given = plain_columns(source.as_ref());
        let given = given.and_then(|given| given.iter().map(place).collect::<Option<Vec<usize>>>());
        let kept = |(given, (column, form)): (Vec<usize>, _)| Kept { form, place: given[column], given };
        self.inner.kept = given.zip(column).map(kept);
        self
    }
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> DfResult<FileOpenFuture> {
        let inner = Arc::new(self.inner.clone());
        Ok(Box::pin(async move { inner.open(file).await }))
    }
}

/// What is done with row groups that follow each other.
enum Step {
    /// As the Parquet source does it.
    Read(Vec<usize>),
    Keep(usize),
    Here(usize, Vec<store::Column>),
}

impl Inner {
    async fn open(
        self: Arc<Self>,
        file: PartitionedFile,
    ) -> DfResult<BoxStream<'static, DfResult<RecordBatch>>> {
        let Some(cache) = self.cache.clone() else { return self.read(file) };
        let id = FileId::of(self.scan.object_store_url.as_str(), &file.object_meta);
        let metadata = self.metadata(&cache, &id, &file).await?;
        let groups = self.groups(&file, &metadata);
        let steps = self.steps(&cache, &id, &metadata, &groups);
        let steps = match steps.as_slice() {
            [] => return Ok(stream::empty().boxed()),
            // Nothing is known of it: not even the row groups need to be told.
            [Step::Read(_)] => return self.read(file),
            _ => steps,
        };
        let groups = metadata.num_row_groups();
        let batches = stream::iter(steps).then(move |step| {
            let (inner, cache, id, file) = (self.clone(), cache.clone(), id.clone(), file.clone());
            async move { inner.step(step, &cache, &id, file, groups).await }
        });
        Ok(batches.try_flatten().boxed())
    }

    async fn step(
        self: Arc<Self>,
        step: Step,
        cache: &DataCache,
        id: &Arc<FileId>,
        file: PartitionedFile,
        groups: usize,
    ) -> DfResult<BoxStream<'static, DfResult<RecordBatch>>> {
        match step {
            Step::Read(chosen) => self.read(only(file, &chosen, groups)),
            Step::Keep(group) => {
                let columns = self.keep(cache, id, only(file.clone(), &[group], groups), group).await?;
                Ok(self.batches(self.numbered(cache, id, &file, group, columns).await?, &file))
            }
            Step::Here(group, columns) => {
                Ok(self.batches(self.numbered(cache, id, &file, group, columns).await?, &file))
            }
        }
    }

    /// The columns with ids in the place of one column's texts, if these are wanted and there are any.
    async fn numbered(
        &self,
        cache: &DataCache,
        id: &Arc<FileId>,
        file: &PartitionedFile,
        group: usize,
        mut columns: Vec<store::Column>,
    ) -> DfResult<Vec<store::Column>> {
        if let Some(Kept { form: Form::Ids(dictionary), place, .. }) = &self.kept {
            let (field, column) = (&self.needed[*place], &mut columns[*place]);
            let texts = TextsId::of(self.scan.object_store_url.as_str(), &file.object_meta, field);
            if let Some(ids) = cache.ids(id, group, field, column, (&texts, dictionary)).await? {
                *column = ids;
            }
        }
        Ok(columns)
    }

    async fn metadata(
        &self,
        cache: &DataCache,
        id: &Arc<FileId>,
        file: &PartitionedFile,
    ) -> DfResult<Arc<ParquetMetaData>> {
        if let Some(metadata) = cache.metadata(id) {
            return Ok(metadata);
        }
        let metrics = self.scan.file_source().metrics();
        let factory = self.parquet()?.parquet_file_reader_factory().cloned();
        let factory =
            factory.unwrap_or_else(|| Arc::new(DefaultParquetFileReaderFactory::new(self.store.clone())));
        let mut reader =
            factory.create_reader(self.partition, file.clone(), file.metadata_size_hint, metrics)?;
        let metadata = reader.get_metadata(None).await?;
        cache.keep_metadata(id, &metadata);
        Ok(metadata)
    }

    fn parquet(&self) -> DfResult<&ParquetSource> {
        let source = self.scan.file_source().downcast_ref::<ParquetSource>();
        source.ok_or_else(|| DataFusionError::Internal("only Parquet sources are cached".to_owned()))
    }

    /// The row groups of the file's range that statistics do not rule out.
    fn groups(&self, file: &PartitionedFile, metadata: &ParquetMetaData) -> Vec<usize> {
        let mut chosen = RowGroupAccessPlanFilter::new(ParquetAccessPlan::new_all(metadata.num_row_groups()));
        if let Some(range) = &file.range {
            chosen.prune_by_range(metadata.row_groups(), range);
        }
        if let Some((physical, predicate)) = self.pruning(file, metadata) {
            let metrics = ParquetFileMetrics::new(
                self.partition,
                file.object_meta.location.as_ref(),
                self.scan.file_source().metrics(),
            );
            chosen.prune_by_statistics(
                &physical,
                metadata.file_metadata().schema_descr(),
                metadata.row_groups(),
                &predicate,
                &metrics,
            );
        }
        chosen.row_group_indexes().collect()
    }

    /// What filters, those included that are known only now, say of statistics; with the schema that this file
    /// has, whose columns may be in another order and of other types than the table's. `None` where they say
    /// nothing.
    fn pruning(
        &self,
        file: &PartitionedFile,
        metadata: &ParquetMetaData,
    ) -> Option<(SchemaRef, PruningPredicate)> {
        let (table, of_file) = (self.scan.file_source().table_schema(), metadata.file_metadata());
        let physical = parquet_to_arrow_schema(of_file.schema_descr(), of_file.key_value_metadata()).ok()?;
        let physical = apply_file_schema_type_coercions(table.file_schema(), &physical).unwrap_or(physical);
        let physical = Arc::new(physical);
        let names = table.table_partition_cols().iter().map(|field| field.name().clone());
        let values: HashMap<String, ScalarValue> = names.zip(file.partition_values.iter().cloned()).collect();
        let filter = replace_columns_with_literals(self.scan.file_source().filter()?, &values).ok()?;
        let adapter = match &self.scan.expr_adapter_factory {
            Some(factory) => factory.create(table.file_schema().clone(), physical.clone()),
            None => DefaultPhysicalExprAdapterFactory.create(table.file_schema().clone(), physical.clone()),
        };
        let filter = snapshot_physical_expr(adapter.ok()?.rewrite(filter).ok()?).ok()?;
        let filter = PhysicalExprSimplifier::new(&physical).simplify(filter).ok()?;
        let predicate =
            PruningPredicateBuilder::new().with_file_schema(physical.clone()).try_build(filter).ok()?;
        (!predicate.always_true()).then_some((physical, predicate))
    }

    fn steps(
        &self,
        cache: &DataCache,
        id: &Arc<FileId>,
        metadata: &ParquetMetaData,
        groups: &[usize],
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for group in groups {
            let here: Option<Vec<store::Column>> =
                self.needed.iter().map(|field| cache.column(id, *group, field)).collect();
            let keep = cache.touch(id, *group) && cache.takes(self.bytes(metadata.row_group(*group)));
            match (here, keep, steps.last_mut()) {
                (Some(columns), ..) => steps.push(Step::Here(*group, columns)),
                (None, true, _) => steps.push(Step::Keep(*group)),
                (None, false, Some(Step::Read(before))) => before.push(*group),
                (None, false, _) => steps.push(Step::Read(vec![*group])),
            }
        }
        steps
    }

    /// Of the needed columns of a row group, as the file encodes them.
    fn bytes(&self, group: &RowGroupMetaData) -> u64 {
        let needed = |name: &str| self.needed.iter().any(|field| field.name() == name);
        let columns = group
            .columns()
            .iter()
            .filter(|column| column.column_path().parts().first().is_some_and(|name| needed(name)));
        columns.map(|column| column.uncompressed_size().unsigned_abs()).sum()
    }

    /// Decodes the columns of a row group that are not here yet.
    async fn keep(
        &self,
        cache: &DataCache,
        id: &Arc<FileId>,
        file: PartitionedFile,
        group: usize,
    ) -> DfResult<Vec<store::Column>> {
        let table = self.scan.file_source().table_schema();
        let here: Vec<Option<store::Column>> =
            self.needed.iter().map(|field| cache.column(id, group, field)).collect();
        let missing: Vec<FieldRef> = self
            .needed
            .iter()
            .zip(&here)
            .filter(|(_, column)| column.is_none())
            .map(|(field, _)| field.clone())
            .collect();
        let places: Vec<usize> = missing
            .iter()
            .map(|field| table.file_schema().index_of(field.name()))
            .collect::<Result<_, _>>()?;
        let parquet = self.parquet()?;
        let mut source = ParquetSource::new(table.clone())
            .with_table_parquet_options(parquet.table_parquet_options().clone());
        if let Some(factory) = parquet.parquet_file_reader_factory() {
            source = source.with_parquet_file_reader_factory(factory.clone());
        }
        let projection = ProjectionExprs::from_indices(&places, table.table_schema());
        let source = source.try_pushdown_projection(&projection)?;
        let source = source
            .ok_or_else(|| DataFusionError::Internal("a Parquet source takes every projection".to_owned()))?;
        let mut decoded = self.scan_file(source, file)?;
        let mut segments: Vec<Vec<Encoded>> = missing.iter().map(|_| Vec::new()).collect();
        let mut coalescer = BatchCoalescer::new(decoded.schema(), SEGMENT_ROWS);
        loop {
            let batch = decoded.try_next().await?;
            let ended = batch.is_none();
            match batch {
                Some(batch) => coalescer.push_batch(batch)?,
                None => coalescer.finish_buffered_batch()?,
            }
            while let Some(segment) = coalescer.next_completed_batch() {
                for (column, segments) in segment.columns().iter().zip(&mut segments) {
                    segments.push(Encoded::of(column));
                }
            }
            if ended {
                break;
            }
        }
        let mut fresh = missing.iter().zip(segments).map(|(field, segments)| {
            let column = Arc::new(segments);
            cache.keep(id, group, field, column.clone());
            column
        });
        let columns: Option<Vec<store::Column>> =
            here.into_iter().map(|column| column.or_else(|| fresh.next())).collect();
        columns.ok_or_else(|| DataFusionError::Internal("a column was not decoded".to_owned()))
    }

    fn batches(
        self: &Arc<Self>,
        columns: Vec<store::Column>,
        file: &PartitionedFile,
    ) -> BoxStream<'static, DfResult<RecordBatch>> {
        let (filters, schema) = (self.filters.clone(), self.schema.clone());
        let rows = LateRows::new(columns, file.partition_values.clone(), filters, schema, self.batch_size);
        let inner = self.clone();
        match &self.kept {
            None => stream::iter(rows.map(move |batch| inner.projector.project_batch(&batch?))).boxed(),
            Some(kept) => {
                let (given, rows) = (kept.given.clone(), rows.with_kept(kept.place));
                stream::iter(rows.map(move |batch| Ok(batch?.project(&given)?))).boxed()
            }
        }
    }

    /// As the Parquet source does it.
    fn read(&self, file: PartitionedFile) -> DfResult<BoxStream<'static, DfResult<RecordBatch>>> {
        let batches = self.scan_file(self.scan.file_source().clone(), file)?;
        if self.filters_of_joins.is_empty() {
            return Ok(batches.boxed());
        }
        let schema = batches.schema();
        Ok(self.filters_of_joins.clone().over(batches.boxed(), schema, self.batch_size))
    }

    fn scan_file(
        &self,
        source: Arc<dyn FileSource>,
        file: PartitionedFile,
    ) -> DfResult<SendableRecordBatchStream> {
        let scan = FileScanConfigBuilder::from(self.scan.clone())
            .with_source(source)
            .with_file_groups(vec![FileGroup::new(vec![file])])
            .with_output_ordering(Vec::new())
            .with_output_partitioning(None)
            .build();
        DataSourceExec::from_data_source(scan).execute(0, self.context.clone())
    }
}

/// The file with some of its row groups only, wherever its range is.
fn only(mut file: PartitionedFile, chosen: &[usize], groups: usize) -> PartitionedFile {
    let mut plan = ParquetAccessPlan::new_none(groups);
    chosen.iter().for_each(|group| plan.scan(*group));
    file.range = None;
    file.with_extension(plan)
}
