//! The data files of a snapshot with what the log says about them: sizes, row counts, partition values, and the
//! least and greatest value of each column.
//!
//! All of it is put into arrays, one row a file, once for each snapshot; a query then drops files by evaluating
//! its filters over these arrays.

use super::columns::Columns;
use super::deletions::rows_left;
use super::error::{from_delta, from_df};
use super::features::unsupported;
use super::scan::Files;
use super::table::{Loaded, Table};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, Result as DfResult, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use deltalake_core::kernel::DeletionVectorDescriptor;
use deltalake_core::logstore::LogStoreRef;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectMeta;
use object_store::path::Path;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::exec::{RowRuns, SelectedFile};
use tokio::sync::OnceCell;
use url::Url;

/// A decimal statistic is a JSON number, exact up to this many digits.
const EXACT_DECIMAL_DIGITS: u8 = 15;

/// Deletion vectors that are read at once.
const AT_ONCE: usize = 16;

#[derive(Debug)]
pub(super) struct FileList {
    pub(super) files: Vec<PartitionedFile>,
    /// Partition values by logical names, one row a file.
    pub(super) partitions: RecordBatch,
    /// Rows in each file, deleted ones included.
    rows: UInt64Array,
    /// By logical names.
    columns: BTreeMap<String, Bounds>,
    /// Where rows of a file are deleted.
    deletions: BTreeMap<usize, Deletions>,
}

#[derive(Clone, Debug)]
struct Deletions {
    vector: DeletionVectorDescriptor,
    left: OnceCell<RowRuns>,
}

/// What the log says about one column, one row a file; null where it says nothing.
#[derive(Debug)]
struct Bounds {
    min: Option<ArrayRef>,
    max: Option<ArrayRef>,
    nulls: Option<UInt64Array>,
    /// Whether the bounds are values that occur, not only bounds.
    exact: bool,
}

impl FileList {
    pub(super) fn new(table: &Table, loaded: &Loaded, columns: &Columns) -> Result<Self> {
        let snapshot = loaded.snapshot();
        let fail = |error| from_delta(error, &table.url);
        let views: Vec<_> = snapshot.try_log_data().map_err(fail)?.iter().collect();
        let batches = snapshot.add_actions_batches(false).map_err(fail)?;
        let adds = match batches.first() {
            Some(first) => concat_batches(&first.schema(), &batches)?,
            None => RecordBatch::new_empty(Arc::new(Schema::empty())),
        };
        if adds.num_rows() != views.len() {
            return Err(Error::internal(
                "the files of a Delta snapshot and their statistics differ in number",
            ));
        }
        let rows: UInt64Array =
            views.iter().map(|view| view.num_records().and_then(|n| u64::try_from(n).ok())).collect();
        let bounds = columns
            .file_columns()
            .map(|(name, field)| Ok((field.name().clone(), Bounds::new(&adds, name, field.data_type())?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let partitions = partition_values(&adds, &columns.partition_schema(), views.len())?;
        let fields: Vec<&Field> = columns.file_columns().map(|(_, field)| field.as_ref()).collect();
        let mut deletions = BTreeMap::new();

        let mut files = Vec::with_capacity(views.len());
        for (row, view) in views.iter().enumerate() {
            let modified = view.modification_datetime().map_err(fail)?;
            let size = u64::try_from(view.size()).unwrap_or_default();
            let location = data_path(table, &view.object_store_path())?;
            let meta = ObjectMeta { location, last_modified: modified, size, e_tag: None, version: None };
            let values = partitions
                .columns()
                .iter()
                .map(|values| ScalarValue::try_from_array(values, row))
                .collect::<DfResult<Vec<_>>>()
                .map_err(|error| from_df(error, &table.url))?;
            let known = rows.is_valid(row).then(|| rows.value(row));
            let mut statistics = statistics(&fields, &bounds, known, size, row, &values);
            if let Some(vector) = view.deletion_vector_descriptor() {
                let deleted = usize::try_from(vector.cardinality).unwrap_or_default();
                statistics = without_rows(statistics, deleted, fields.len());
                deletions.insert(row, Deletions { vector, left: OnceCell::new() });
            }
            let mut file = PartitionedFile::new_from_meta(meta).with_partition_values(values);
            // Not by `with_statistics`: that takes partition values for never NULL.
            file.statistics = Some(Arc::new(statistics));
            files.push(file);
        }
        Ok(Self { files, partitions, rows, columns: bounds, deletions })
    }

    /// The files of these numbers, with the rows that count where some are deleted.
    pub(super) async fn read(
        &self,
        log_store: &LogStoreRef,
        table: &Url,
        numbers: &[usize],
    ) -> Result<Files> {
        let mut files = Files { whole: Vec::new(), selected: Vec::new(), statistics: None, cut: false };
        let selected = numbers.iter().filter_map(|number| Some((number, self.deletions.get(number)?)));
        let selected = selected.map(|(number, deletions)| async move {
            let rows = self.rows.is_valid(*number).then(|| self.rows.value(*number));
            let left = || rows_left(log_store, table, deletions.vector.clone(), rows);
            let rows = deletions.left.get_or_try_init(left).await?.clone();
            Ok::<_, Error>(SelectedFile { file: self.files[*number].clone(), rows })
        });
        let selected: Vec<_> = selected.collect();
        files.selected = stream::iter(selected).buffered(AT_ONCE).try_collect().await?;
        let whole = numbers.iter().filter(|number| !self.deletions.contains_key(number));
        files.whole = whole.map(|number| self.files[*number].clone()).collect();
        Ok(files)
    }
}

impl FileList {
    /// Some of the files, with their numbers as one more partition value if it has a name.
    pub(super) fn select(&self, numbers: &[usize], number_column: Option<&str>) -> Result<Self> {
        let rows = UInt64Array::from_iter_values(numbers.iter().map(|number| *number as u64));
        let mut files = Vec::with_capacity(numbers.len());
        for number in numbers {
            let file = self.files.get(*number).ok_or_else(|| Error::internal("a file that is not there"))?;
            let mut file = file.clone();
            if number_column.is_some() {
                let value = ScalarValue::Int64(Some(*number as i64));
                file.statistics = file.statistics.map(|known| Arc::new(with_constant(&known, &value)));
                file.partition_values.push(value);
            }
            files.push(file);
        }
        let pick = |values: &ArrayRef| -> Result<ArrayRef> { Ok(take(values, &rows, None)?) };
        let mut fields: Vec<Arc<Field>> = self.partitions.schema().fields().iter().cloned().collect();
        let mut values = self.partitions.columns().iter().map(pick).collect::<Result<Vec<_>>>()?;
        if let Some(name) = number_column {
            fields.push(Arc::new(Field::new(name, DataType::Int64, false)));
            values.push(Arc::new(Int64Array::from_iter_values(numbers.iter().map(|number| *number as i64))));
        }
        let count = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let partitions = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), values, &count)?;
        let mut columns = BTreeMap::new();
        for (name, bounds) in &self.columns {
            let nulls = match &bounds.nulls {
                Some(nulls) => Some(take(nulls, &rows, None)?.as_primitive().clone()),
                None => None,
            };
            let picked = Bounds {
                min: bounds.min.as_ref().map(pick).transpose()?,
                max: bounds.max.as_ref().map(pick).transpose()?,
                nulls,
                exact: bounds.exact,
            };
            columns.insert(name.clone(), picked);
        }
        let rows = take(&self.rows, &rows, None)?.as_primitive().clone();
        let deleted = |(place, number): (usize, &usize)| Some((place, self.deletions.get(number)?.clone()));
        let deletions = numbers.iter().enumerate().filter_map(deleted).collect();
        Ok(Self { files, partitions, rows, columns, deletions })
    }
}

/// Statistics with one more column, which has the same value in all rows.
fn with_constant(known: &Statistics, value: &ScalarValue) -> Statistics {
    let mut column = ColumnStatistics::new_unknown();
    column.distinct_count = Precision::Exact(1);
    column.null_count = Precision::Exact(0);
    column.min_value = Precision::Exact(value.clone());
    column.max_value = Precision::Exact(value.clone());
    let mut statistics = known.clone();
    statistics.column_statistics.push(column);
    statistics
}

impl Bounds {
    fn new(adds: &RecordBatch, column: &str, data_type: &DataType) -> Result<Self> {
        let of = |kind: &str| -> Option<ArrayRef> {
            adds.column_by_name(kind)?.as_struct_opt()?.column_by_name(column).cloned()
        };
        let nulls = match of("null_count") {
            Some(counts) if counts.data_type() == &DataType::Int64 => Some(
                counts
                    .as_primitive::<Int64Type>()
                    .iter()
                    .map(|count| count.and_then(|count| u64::try_from(count).ok()))
                    .collect(),
            ),
            _ => None,
        };
        let usable = match data_type {
            DataType::Decimal128(precision, _) => *precision <= EXACT_DECIMAL_DIGITS,
            DataType::Utf8View | DataType::Utf8 | DataType::Date32 | DataType::Timestamp(_, _) => true,
            other => other.is_numeric(),
        };
        if !usable {
            return Ok(Self { min: None, max: None, nulls, exact: false });
        }
        let bound = |kind: &str| of(kind).map(|values| cast(&values, data_type)).transpose();
        let max = bound("max")?.map(|max| match data_type {
            DataType::Timestamp(TimeUnit::Microsecond, _) => at_most(&max),
            _ => max,
        });
        let exact = data_type.is_integer() || data_type == &DataType::Date32;
        Ok(Self { min: bound("min")?, max, nulls, exact })
    }

    fn precision(&self, bound: Option<&ArrayRef>, row: usize) -> Precision<ScalarValue> {
        let value = bound.filter(|values| values.is_valid(row)).map(|v| ScalarValue::try_from_array(v, row));
        match value {
            Some(Ok(value)) if self.exact => Precision::Exact(value),
            Some(Ok(value)) => Precision::Inexact(value),
            _ => Precision::Absent,
        }
    }
}

/// Some writers cut times in statistics to whole milliseconds; for the greatest value that is too little.
fn at_most(max: &ArrayRef) -> ArrayRef {
    let data_type = max.data_type().clone();
    let values = max.as_primitive::<TimestampMicrosecondType>();
    let raised = values.unary::<_, TimestampMicrosecondType>(|value| match value % 1_000 {
        0 => value.saturating_add(999),
        _ => value,
    });
    Arc::new(raised.with_data_type(data_type))
}

fn partition_values(adds: &RecordBatch, schema: &SchemaRef, files: usize) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef> {
        if files == 0 {
            return Ok(arrow::array::new_empty_array(field.data_type()));
        }
        let values = adds
            .column_by_name("partition")
            .and_then(|values| values.as_struct_opt()?.column_by_name(field.name()))
            .ok_or_else(|| {
                Error::new(Code::Corrupt, format!("no partition values for `{}`", field.name()))
            })?;
        Ok(cast(values, field.data_type())?)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(files));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &rows)?)
}

/// Where a file of the table is in its store.
pub(super) fn data_path(table: &Table, path: &Path) -> Result<Path> {
    if path.as_ref().contains("://")
        || path.as_ref().starts_with("file:/")
        || path.as_ref().starts_with("s3:/")
    {
        return Err(unsupported("read", &format!("files outside of its own folder (`{path}`)"))
            .context(format!("Delta table {}", table.url)));
    }
    Ok(table.root.parts().chain(path.parts()).collect())
}

/// Of a file of which rows are deleted: its bounds still hold, but may be of deleted rows.
fn without_rows(statistics: Statistics, deleted: usize, file_columns: usize) -> Statistics {
    let left = |rows: usize| rows.saturating_sub(deleted);
    let num_rows = match statistics.num_rows {
        Precision::Exact(rows) => Precision::Exact(left(rows)),
        other => other,
    };
    let mut loose = statistics.clone().to_inexact();
    loose.num_rows = num_rows;
    // Partition values are the same in all rows.
    let partitions = statistics.column_statistics.into_iter().enumerate().skip(file_columns);
    for (place, mut column) in partitions {
        if column.null_count != Precision::Exact(0) {
            column.null_count = num_rows;
        }
        column.byte_size = column.byte_size.to_inexact();
        loose.column_statistics[place] = column;
    }
    loose
}

fn statistics(
    file_fields: &[&Field],
    columns: &BTreeMap<String, Bounds>,
    rows: Option<u64>,
    size: u64,
    row: usize,
    partition_values: &[ScalarValue],
) -> Statistics {
    let rows = rows.and_then(|rows| usize::try_from(rows).ok());
    let num_rows = rows.map_or(Precision::Absent, Precision::Exact);
    let width = |width: usize| num_rows.multiply(&Precision::Exact(width));
    let variable = file_fields.iter().filter(|f| f.data_type().primitive_width().is_none()).count();
    // The log does not say how large a column is; the joint size is right, the shares are a guess.
    let share = usize::try_from(size).unwrap_or(usize::MAX) / variable.max(1);
    let mut column_statistics: Vec<ColumnStatistics> = file_fields
        .iter()
        .map(|field| {
            let mut column = ColumnStatistics::new_unknown();
            column.byte_size = match field.data_type().primitive_width() {
                Some(bytes) => width(bytes),
                None => Precision::Inexact(share),
            };
            if let Some(bounds) = columns.get(field.name()) {
                column.min_value = bounds.precision(bounds.min.as_ref(), row);
                column.max_value = bounds.precision(bounds.max.as_ref(), row);
                let nulls = bounds.nulls.as_ref().filter(|nulls| nulls.is_valid(row));
                let nulls = nulls.and_then(|nulls| usize::try_from(nulls.value(row)).ok());
                column.null_count = nulls.map_or(Precision::Absent, Precision::Exact);
            }
            column
        })
        .collect();
    for value in partition_values {
        let mut column = ColumnStatistics::new_unknown();
        column.distinct_count = Precision::Exact(1);
        column.byte_size = value.data_type().primitive_width().map_or(Precision::Absent, width);
        if value.is_null() {
            column.null_count = num_rows;
        } else {
            column.null_count = Precision::Exact(0);
            column.min_value = Precision::Exact(value.clone());
            column.max_value = Precision::Exact(value.clone());
        }
        column_statistics.push(column);
    }
    let total = column_statistics.iter().fold(Precision::Exact(0), |sum, column| match column.byte_size {
        Precision::Absent => sum,
        known => sum.add(&known),
    });
    Statistics { num_rows, total_byte_size: total.to_inexact(), column_statistics }
}

impl PruningStatistics for FileList {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match self.columns.get(&column.name) {
            Some(bounds) => bounds.min.clone(),
            None => self.partitions.column_by_name(&column.name).cloned(),
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match self.columns.get(&column.name) {
            Some(bounds) => bounds.max.clone(),
            None => self.partitions.column_by_name(&column.name).cloned(),
        }
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let nulls = self.columns.get(&column.name)?.nulls.clone()?;
        Some(Arc::new(nulls))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.rows.clone()))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
