//! Rows of a row group whose columns are all here: filters first, then the columns of the rows that are left.

use super::encoded::Encoded;
use super::filters::EarlyFilters;
use super::store::Column;
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{BatchCoalescer, take};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

pub(super) struct LateRows {
    columns: Vec<Column>,
    /// Of the partition columns, which come last.
    values: Vec<ScalarValue>,
    filters: Arc<EarlyFilters>,
    schema: SchemaRef,
    kept: BatchCoalescer,
    /// The next one.
    segment: usize,
    /// The column that stays as it is kept.
    kept_as_is: Option<usize>,
}

impl LateRows {
    /// Rows of `schema`: `columns`, then `values`.
    pub(super) fn new(
        columns: Vec<Column>,
        values: Vec<ScalarValue>,
        filters: Arc<EarlyFilters>,
        schema: SchemaRef,
        batch_size: usize,
    ) -> Self {
        let kept = BatchCoalescer::new(schema.clone(), batch_size)
            .with_biggest_coalesce_batch_size(Some(batch_size / 2));
        Self { columns, values, filters, schema, kept, segment: 0, kept_as_is: None }
    }

    /// The same with one column as it is kept, segment by segment: the dictionary of codes is one segment's.
    pub(super) fn with_kept(self, column: usize) -> impl Iterator<Item = DfResult<RecordBatch>> {
        let rows = Self { kept_as_is: Some(column), ..self };
        let segments = rows.columns.first().map_or(0, |column| column.len());
        (0..segments).filter_map(move |segment| rows.rows(segment).transpose())
    }

    fn push(&mut self, segment: usize) -> DfResult<()> {
        match self.rows(segment)? {
            Some(rows) => Ok(self.kept.push_batch(rows)?),
            None => Ok(()),
        }
    }

    /// Of a segment; `None` where the filters leave none.
    fn rows(&self, segment: usize) -> DfResult<Option<RecordBatch>> {
        let encoded: Vec<&Encoded> = self.columns.iter().map(|column| &column[segment]).collect();
        let rows = encoded.first().map_or(0, |column| column.rows());
        let mut decoded: Vec<Option<ArrayRef>> = vec![None; self.schema.fields().len()];
        let column = |place: usize, at: Option<&UInt32Array>| match (encoded.get(place), at) {
            (Some(column), Some(places)) => column.decode_at(places),
            (Some(column), None) => column.decode(),
            (None, _) => self.values[place - encoded.len()].to_array_of_size(at.map_or(rows, |at| at.len())),
        };
        let left = self.filters.left(rows, |place, at| match (&decoded[place], at) {
            (Some(array), Some(places)) => Ok(take(array, places, None)?),
            (Some(array), None) => Ok(array.clone()),
            (None, Some(_)) => column(place, at),
            (None, None) => {
                let array = column(place, None)?;
                decoded[place] = Some(array.clone());
                Ok(array)
            }
        })?;
        if left.as_ref().is_some_and(|places| places.is_empty()) {
            return Ok(None);
        }
        let columns = decoded.into_iter().enumerate().map(|(place, array)| match (array, &left) {
            (Some(array), Some(places)) => Ok(take(&array, places, None)?),
            (Some(array), None) => Ok(array),
            (None, at) if self.kept_as_is == Some(place) => encoded[place].as_kept(at.as_ref()),
            (None, at) => column(place, at.as_ref()),
        });
        let columns = columns.collect::<DfResult<Vec<_>>>()?;
        if self.kept_as_is.is_none() {
            return Ok(Some(RecordBatch::try_new(self.schema.clone(), columns)?));
        }
        let fields = self.schema.fields().iter().zip(&columns);
        let fields =
            fields.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Some(RecordBatch::try_new(schema, columns)?))
    }
}

impl Iterator for LateRows {
    type Item = DfResult<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let segments = self.columns.first().map_or(0, |column| column.len());
        loop {
            if let Some(batch) = self.kept.next_completed_batch() {
                return Some(Ok(batch));
            }
            let pushed = match self.segment.cmp(&segments) {
                std::cmp::Ordering::Less => self.push(self.segment),
                std::cmp::Ordering::Equal => self.kept.finish_buffered_batch().map_err(Into::into),
                std::cmp::Ordering::Greater => return None,
            };
            self.segment += 1;
            if let Err(error) = pushed {
                self.segment = segments + 1;
                return Some(Err(error));
            }
        }
    }
}
