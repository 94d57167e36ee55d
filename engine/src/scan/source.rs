//! A Parquet source that takes from the cache what is there and filters early.

use super::DataCache;
use super::bounds;
use super::encoded::Encoded;
use super::grouped::{self, Form};
use super::json_array;
use super::opener::Opener;
use super::store::{self, FileId, TextsId};
use crate::Services;
use crate::build_sides::ready;
use crate::dictionary::Dictionary;
use arrow::datatypes::FieldRef;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpener, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::TaskContext;
use datafusion::functions::core::input_file_name::InputFileNameFunc;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr_adapter::rewrite::expr_references_scalar_udf;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, ExecutionPlan};
use object_store::ObjectStore;
use std::fmt;
use std::sync::Arc;

/// Files of more bytes than this many times the cache are read past it: they would only drive each other out.
const LARGEST_SCAN: u64 = 4;

/// Where the rows of a plan go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The whole plan runs in this process.
    Stay,
    /// The plan is a task's, and others may get its rows.
    Travel,
}

/// The plan with its Parquet scans reading through the process's cache, if it has one, and filtering early, and its
/// JSON arrays read whole.
pub fn prepare(
    plan: Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    rows: Rows,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let cache = Services::of(context).ok().and_then(|services| services.data.clone());
    let prepared = plan.transform_up(|node| {
        if let Some(grouped) = grouped::over_kept(&node, rows)? {
            return Ok(Transformed::yes(grouped));
        }
        let Some(scan) = files_of(&node) else { return Ok(Transformed::no(node)) };
        if !suits(scan) {
            return Ok(match json_array::whole(&node) {
                Some(whole) => Transformed::yes(whole),
                None => Transformed::no(node),
            });
        }
        let wider = bounds::without_too_narrow(scan);
        let scan = wider.as_ref().unwrap_or(scan);
        let bytes = file_bytes(scan);
        let fits = |cache: &&Arc<DataCache>| bytes <= cache.capacity().saturating_mul(LARGEST_SCAN);
        let source = LakeSource {
            parquet: with_keys(scan.file_source())?,
            cache: cache.as_ref().filter(fits).cloned(),
            context: context.clone(),
            as_kept: None,
        };
        let scan = FileScanConfigBuilder::from(scan.clone()).with_source(Arc::new(source)).build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(scan);
        Ok(Transformed::yes(scan))
    })?;
    Ok(prepared.data)
}

/// The source with the sets of keys in its condition read.
fn with_keys(source: &Arc<dyn FileSource>) -> DfResult<Arc<dyn FileSource>> {
    let Some((parquet, filter)) = source.downcast_ref::<ParquetSource>().zip(source.filter()) else {
        return Ok(Arc::clone(source));
    };
    Ok(match ready(filter, source.table_schema().table_schema())? {
        Some(ready) => Arc::new(parquet.with_predicate(ready)),
        None => Arc::clone(source),
    })
}

/// Whether a scan keeps one of its columns as codes, from the first row group that it keeps.
pub(super) fn keeps_codes(plan: &Arc<dyn ExecutionPlan>, column: usize) -> bool {
    let kept = lake_column(plan, column).and_then(|column| column.first_kept());
    kept.is_some_and(|kept| kept.iter().all(|segment| matches!(segment, Encoded::Codes { .. })))
}

/// The dictionary of a column of texts that a scan keeps; `None` where it has none.
pub(super) fn dictionary_of(plan: &Arc<dyn ExecutionPlan>, column: usize) -> Option<Arc<Dictionary>> {
    let column = lake_column(plan, column)?;
    let filtered = column.source.filter().map(|filter| collect_columns(&filter)).unwrap_or_default();
    // Filters read texts.
    if filtered.iter().any(|by| by.index() == column.in_table) {
        return None;
    }
    column.first_kept()?;
    let first = files(column.scan).next()?;
    column.cache.dictionary(&TextsId::of(column.store(), &first.object_meta, column.field))
}

/// A column that a scan gives as its files have it.
struct LakeColumn<'a> {
    scan: &'a FileScanConfig,
    source: &'a LakeSource,
    cache: &'a Arc<DataCache>,
    in_table: usize,
    field: &'a FieldRef,
}

fn lake_column(plan: &Arc<dyn ExecutionPlan>, column: usize) -> Option<LakeColumn<'_>> {
    let scan = files_of(plan)?;
    let source = scan.file_source().downcast_ref::<LakeSource>()?;
    let in_table = *plain_columns(source)?.get(column)?;
    let field = source.table_schema().file_schema().fields().get(in_table)?;
    Some(LakeColumn { scan, source, cache: source.cache.as_ref()?, in_table, field })
}

impl LakeColumn<'_> {
    fn store(&self) -> &str {
        self.scan.object_store_url.as_str()
    }

    fn first_kept(&self) -> Option<store::Column> {
        files(self.scan).find_map(|file| {
            let id = FileId::of(self.store(), &file.object_meta);
            let mut groups = 0..self.cache.metadata(&id)?.num_row_groups();
            groups.find_map(|group| self.cache.column(&id, group, self.field))
        })
    }
}

/// The scan with one of its columns handed on as it is kept.
pub(super) fn handing_on(
    plan: &Arc<dyn ExecutionPlan>,
    column: usize,
    form: Form,
) -> Option<Arc<dyn ExecutionPlan>> {
    let scan = files_of(plan)?;
    let source = scan.file_source().downcast_ref::<LakeSource>()?;
    let source = LakeSource { as_kept: Some((column, form)), ..source.clone() };
    let scan = FileScanConfigBuilder::from(scan.clone()).with_source(Arc::new(source)).build();
    Some(DataSourceExec::from_data_source(scan))
}

/// The table's columns that a scan gives; `None` where it computes one.
pub(super) fn plain_columns(source: &dyn FileSource) -> Option<Vec<usize>> {
    match source.projection() {
        Some(given) => {
            given.iter().map(|column| Some(column.expr.downcast_ref::<Column>()?.index())).collect()
        }
        None => Some((0..source.table_schema().table_schema().fields().len()).collect()),
    }
}

/// The scan that a leaf is, if it reads files.
pub fn files_of(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref()
}

/// Whether a leaf says by which column its files are divided into partitions (`preserve_file_partitions`). The rows of
/// one are in no other, but it is not the partition that their hash would put them into.
pub(crate) fn divides_by_files(plan: &Arc<dyn ExecutionPlan>) -> bool {
    files_of(plan).is_some_and(|scan| scan.output_partitioning.is_some())
}

/// Bytes of all files of a scan.
pub fn file_bytes(scan: &FileScanConfig) -> u64 {
    files(scan).map(|file| file.object_meta.size).sum()
}

pub(super) fn files(scan: &FileScanConfig) -> impl Iterator<Item = &PartitionedFile> {
    scan.file_groups.iter().flat_map(|group| group.files())
}

fn suits(scan: &FileScanConfig) -> bool {
    let Some(source) = scan.file_source().downcast_ref::<ParquetSource>() else { return false };
    // A limit wants a few rows soon, not whole row groups.
    scan.limit.is_none()
        // Rows are filtered while they are decoded: exactly, so not by us.
        && !source.table_parquet_options().global.pushdown_filters
        && source.table_schema().virtual_columns().is_empty()
        && !file_columns(source).is_empty()
        // Each file has another answer.
        && !names_its_file(source)
        // Somebody has chosen the rows to be read.
        && files(scan).all(|file| file.extensions.is_empty())
}

fn names_its_file(source: &dyn FileSource) -> bool {
    source.projection().is_some_and(|projection| {
        projection.iter().any(|column| expr_references_scalar_udf::<InputFileNameFunc>(&column.expr))
    })
}

/// Columns of the files that the scan gives or computes from.
pub(super) fn file_columns(source: &dyn FileSource) -> Vec<usize> {
    let in_files = source.table_schema().file_schema().fields().len();
    match source.projection() {
        Some(projection) => {
            projection.column_indices().into_iter().filter(|place| *place < in_files).collect()
        }
        None => (0..in_files).collect(),
    }
}

#[derive(Clone)]
struct LakeSource {
    parquet: Arc<dyn FileSource>,
    cache: Option<Arc<DataCache>>,
    context: Arc<TaskContext>,
    /// The column that is handed on in this form where it is kept so, for [`grouped`] above.
    as_kept: Option<(usize, Form)>,
}

impl FileSource for LakeSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> DfResult<Arc<dyn FileOpener>> {
        let scan = FileScanConfigBuilder::from(base_config.clone()).with_source(self.parquet.clone()).build();
        let opener = Opener::new(self.cache.clone(), self.context.clone(), scan, object_store, partition)?;
        Ok(Arc::new(opener.handing_on(self.as_kept.clone())))
    }

    fn table_schema(&self) -> &TableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { parquet: self.parquet.with_batch_size(batch_size), ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    fn file_type(&self) -> &str {
        self.parquet.file_type()
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parquet.fmt_extra(format, f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.parquet.supports_repartitioning()
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        self.parquet.apply_expressions(visit)
    }
}
