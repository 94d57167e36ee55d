//! Reads one file: from the cache what is there, the rest as the Parquet source does.

use super::DataCache;
use super::encoded::Encoded;
use super::source::file_columns;
use super::store::{Column, FileId};
use arrow::array::{ArrayRef, RecordBatch};
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
use parquet::file::metadata::ParquetMetaData;
use std::collections::HashMap;
use std::sync::Arc;

/// Rows of a segment, fixed: columns of a row group that were decoded at different times must fit together.
const SEGMENT_ROWS: usize = 8192;

pub(super) struct Opener {
    inner: Arc<Inner>,
}

struct Inner {
    cache: Arc<DataCache>,
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
}

impl Opener {
    pub(super) fn new(
        cache: Arc<DataCache>,
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
        let projector =
            projection.try_map_exprs(|expr| reassign_expr_columns(expr, &schema))?.make_projector(&schema)?;
        let inner = Inner { cache, context, scan, store, partition, needed, schema, projector };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> DfResult<FileOpenFuture> {
        let inner = self.inner.clone();
        Ok(Box::pin(async move { inner.open(file).await }))
    }
}

/// What is done with row groups that follow each other.
enum Step {
    /// As the Parquet source does it.
    Read(Vec<usize>),
    Keep(usize),
    Here(Vec<Column>),
}

impl Inner {
    async fn open(
        self: Arc<Self>,
        file: PartitionedFile,
    ) -> DfResult<BoxStream<'static, DfResult<RecordBatch>>> {
        let id = FileId::of(self.scan.object_store_url.as_str(), &file.object_meta);
        let metadata = self.metadata(&id, &file).await?;
        let groups = self.groups(&file, &metadata);
        let steps = self.steps(&id, &groups);
        let steps = match steps.as_slice() {
            [] => return Ok(stream::empty().boxed()),
            // Nothing is known of it: not even the row groups need to be told.
            [Step::Read(_)] => return Ok(self.scan_file(self.scan.file_source().clone(), file)?.boxed()),
            _ => steps,
        };
        let groups = metadata.num_row_groups();
        let batches = stream::iter(steps).then(move |step| {
            let (inner, id, file) = (self.clone(), id.clone(), file.clone());
            async move { inner.step(step, &id, file, groups).await }
        });
        Ok(batches.try_flatten().boxed())
    }

    async fn step(
        self: Arc<Self>,
        step: Step,
        id: &Arc<FileId>,
        file: PartitionedFile,
        groups: usize,
    ) -> DfResult<BoxStream<'static, DfResult<RecordBatch>>> {
        match step {
            Step::Read(chosen) => {
                let file = only(file, &chosen, groups);
                Ok(self.scan_file(self.scan.file_source().clone(), file)?.boxed())
            }
            Step::Keep(group) => {
                let columns = self.keep(id, only(file.clone(), &[group], groups), group).await?;
                Ok(self.batches(columns, &file))
            }
            Step::Here(columns) => Ok(self.batches(columns, &file)),
        }
    }

    async fn metadata(&self, id: &Arc<FileId>, file: &PartitionedFile) -> DfResult<Arc<ParquetMetaData>> {
        if let Some(metadata) = self.cache.metadata(id) {
            return Ok(metadata);
        }
        let metrics = self.scan.file_source().metrics();
        let factory = self.parquet()?.parquet_file_reader_factory().cloned();
        let factory =
            factory.unwrap_or_else(|| Arc::new(DefaultParquetFileReaderFactory::new(self.store.clone())));
        let mut reader =
            factory.create_reader(self.partition, file.clone(), file.metadata_size_hint, metrics)?;
        let metadata = reader.get_metadata(None).await?;
        self.cache.keep_metadata(id, &metadata);
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

    fn steps(&self, id: &Arc<FileId>, groups: &[usize]) -> Vec<Step> {
        let mut steps = Vec::new();
        for group in groups {
            let here: Option<Vec<Column>> =
                self.needed.iter().map(|field| self.cache.column(id, *group, field)).collect();
            let often = self.cache.touch(id, *group);
            match (here, often, steps.last_mut()) {
                (Some(columns), ..) => steps.push(Step::Here(columns)),
                (None, true, _) => steps.push(Step::Keep(*group)),
                (None, false, Some(Step::Read(before))) => before.push(*group),
                (None, false, _) => steps.push(Step::Read(vec![*group])),
            }
        }
        steps
    }

    /// Decodes the columns of a row group that are not here yet.
    async fn keep(&self, id: &Arc<FileId>, file: PartitionedFile, group: usize) -> DfResult<Vec<Column>> {
        let table = self.scan.file_source().table_schema();
        let here: Vec<Option<Column>> =
            self.needed.iter().map(|field| self.cache.column(id, group, field)).collect();
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
            self.cache.keep(id, group, field, column.clone());
            column
        });
        let columns: Option<Vec<Column>> =
            here.into_iter().map(|column| column.or_else(|| fresh.next())).collect();
        columns.ok_or_else(|| DataFusionError::Internal("a column was not decoded".to_owned()))
    }

    fn batches(
        self: &Arc<Self>,
        columns: Vec<Column>,
        file: &PartitionedFile,
    ) -> BoxStream<'static, DfResult<RecordBatch>> {
        let segments = columns.first().map_or(0, |column| column.len());
        let (inner, partition_values) = (self.clone(), file.partition_values.clone());
        let batch = move |segment: usize| {
            let rows = columns[0][segment].rows();
            let mut arrays: Vec<ArrayRef> =
                columns.iter().map(|column| column[segment].decode()).collect::<DfResult<_>>()?;
            for value in &partition_values {
                arrays.push(value.to_array_of_size(rows)?);
            }
            inner.projector.project_batch(&RecordBatch::try_new(inner.schema.clone(), arrays)?)
        };
        stream::iter((0..segments).map(batch)).boxed()
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
