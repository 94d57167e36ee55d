//! Conditions that drop rows before these are decoded, shuffled, joined and aggregated, as long as it pays.

use crate::build_sides::asks_keys;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{BatchCoalescer, take, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{Column, DynamicFilterTracking};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::scalar::ScalarValue;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use std::sync::Arc;

/// Batches between two decisions on whether a condition is worth its evaluation.
const TRIAL_BATCHES: usize = 8;
/// Batches that pass untouched after a trial that dropped too little: what a join fills in may get stricter.
const REST_BATCHES: usize = 56;
/// Of a hundred rows so many must be dropped by a condition that is evaluated nowhere else.
const WORTHWHILE_PERCENT: usize = 25;
/// The same for one that a filter above the scan evaluates again, for the rows that are left.
const WORTHWHILE_TWICE_PERCENT: usize = 50;

/// Which conditions are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// Those of joins, which are known only while the query runs.
    Dynamic,
}

/// Conditions of a scan, each over the columns that it needs.
#[derive(Debug)]
pub(super) struct EarlyFilters {
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    /// Over `schema`.
    expr: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    /// For each column of `schema` its place among the columns of the rows.
    places: Vec<usize>,
    worthwhile_percent: usize,
    trial: Mutex<Trial>,
}

/// Rows that have passed so far.
enum Left {
    All,
    Most(BooleanBuffer),
    /// So few that it pays to gather them.
    Few(UInt32Array),
}

impl Left {
    fn of(mask: BooleanBuffer, rows: usize) -> Self {
        match mask.count_set_bits() {
            all if all == rows => Self::All,
            few if few * 2 < rows => Self::Few(mask.set_indices_u32().collect::<Vec<u32>>().into()),
            _ => Self::Most(mask),
        }
    }
}

impl EarlyFilters {
    /// The conditions of `filter`, which is over a table. `of_table` says for each column of the rows which column
    /// of the table it is, if it is one.
    pub(super) fn new(
        filter: Option<Arc<dyn PhysicalExpr>>,
        wanted: Wanted,
        rows: &Schema,
        of_table: &[Option<usize>],
    ) -> DfResult<Self> {
        let mut conditions = Vec::new();
        for part in filter.iter().flat_map(|filter| split_conjunction(filter)) {
            let dynamic = is_of_join(part);
            if is_volatile(part) || (wanted == Wanted::Dynamic && !dynamic) {
                continue;
            }
            let mut places = Vec::new();
            let mut complete = true;
            let expr = part.clone().transform_up(|expr| {
                let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
                let Some(place) = of_table.iter().position(|of| *of == Some(column.index())) else {
                    complete = false;
                    return Ok(Transformed::no(expr));
                };
                let known = places.iter().position(|known| *known == place);
                let index = known.unwrap_or_else(|| {
                    places.push(place);
                    places.len() - 1
                });
                let moved: Arc<dyn PhysicalExpr> = Arc::new(Column::new(column.name(), index));
                Ok(Transformed::yes(moved))
            })?;
            if !complete || places.is_empty() {
                continue;
            }
            conditions.push(Condition {
                expr: expr.data,
                schema: Arc::new(rows.project(&places)?),
                places,
                worthwhile_percent: if dynamic { WORTHWHILE_PERCENT } else { WORTHWHILE_TWICE_PERCENT },
                trial: Mutex::default(),
            });
        }
        Ok(Self { conditions })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Places of the rows that are left, `None` when all are. `column` gives a column of all rows, or of those at
    /// some places: what one condition has dropped the next one is not asked for.
    pub(super) fn left(
        &self,
        rows: usize,
        mut column: impl FnMut(usize, Option<&UInt32Array>) -> DfResult<ArrayRef>,
    ) -> DfResult<Option<UInt32Array>> {
        let mut left = Left::All;
        for condition in &self.conditions {
            left = match left {
                Left::All => match condition.evaluate(rows, |place| column(place, None))? {
                    Some(passes) => Left::of(passes, rows),
                    None => Left::All,
                },
                Left::Most(mask) => match condition.evaluate(rows, |place| column(place, None))? {
                    Some(passes) => Left::of(&mask & &passes, rows),
                    None => Left::Most(mask),
                },
                Left::Few(places) if places.is_empty() => return Ok(Some(places)),
                Left::Few(places) => {
                    match condition.evaluate(places.len(), |place| column(place, Some(&places)))? {
                        Some(passes) => {
                            let kept = passes.set_indices().map(|place| places.value(place));
                            Left::Few(kept.collect::<Vec<u32>>().into())
                        }
                        None => Left::Few(places),
                    }
                }
            };
        }
        Ok(match left {
            Left::All => None,
            Left::Most(mask) => Some(mask.set_indices_u32().collect::<Vec<u32>>().into()),
            Left::Few(places) => Some(places),
        })
    }

    /// The rows of a stream that are left.
    pub(super) fn over(
        self: Arc<Self>,
        batches: BoxStream<'static, DfResult<RecordBatch>>,
        schema: SchemaRef,
        batch_size: usize,
    ) -> BoxStream<'static, DfResult<RecordBatch>> {
        let kept =
            BatchCoalescer::new(schema, batch_size).with_biggest_coalesce_batch_size(Some(batch_size / 2));
        let open = Some((batches, kept));
        let filtered = stream::try_unfold(open, move |open| {
            let this = self.clone();
            async move {
                let Some((mut batches, mut kept)) = open else { return Ok(None) };
                loop {
                    if let Some(batch) = kept.next_completed_batch() {
                        return Ok(Some((batch, Some((batches, kept)))));
                    }
                    let Some(batch) = batches.next().await.transpose()? else {
                        kept.finish_buffered_batch()?;
                        return Ok(kept.next_completed_batch().map(|last| (last, None)));
                    };
                    let left = this.left(batch.num_rows(), |place, at| match at {
                        Some(places) => Ok(take(batch.column(place), places, None)?),
                        None => Ok(batch.column(place).clone()),
                    })?;
                    match left {
                        Some(places) if places.is_empty() => {}
                        Some(places) => kept.push_batch(take_record_batch(&batch, &places)?)?,
                        None => kept.push_batch(batch)?,
                    }
                }
            }
        });
        filtered.boxed()
    }
}

/// Whether nothing above the scan asks for it again, as a join only does by joining.
fn is_of_join(condition: &Arc<dyn PhysicalExpr>) -> bool {
    asks_keys(condition) || DynamicFilterTracking::classify(condition).contains_dynamic_filter()
}

impl Condition {
    /// `None` when it is not tried, or lets all rows pass.
    fn evaluate(
        &self,
        rows: usize,
        column: impl FnMut(usize) -> DfResult<ArrayRef>,
    ) -> DfResult<Option<BooleanBuffer>> {
        if self.trial.lock().rests() {
            return Ok(None);
        }
        let columns = self.places.iter().copied().map(column).collect::<DfResult<Vec<_>>>()?;
        let counted = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &counted)?;
        let passes = match self.expr.evaluate(&batch) {
            // A filter that is not filled in yet.
            Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))) => return Ok(None),
            Ok(ColumnarValue::Scalar(_)) => BooleanBuffer::new_unset(rows),
            Ok(ColumnarValue::Array(passes)) => {
                let passes = passes.as_boolean();
                match passes.nulls() {
                    Some(valid) => passes.values() & valid.inner(),
                    None => passes.values().clone(),
                }
            }
            // It may hold of rows only that another condition leaves, as in `n <> 0 AND 1 / n > 2`. Whoever has to
            // evaluate it does so above.
            Err(_) => {
                *self.trial.lock() = Trial { rest: usize::MAX, ..Trial::default() };
                return Ok(None);
            }
        };
        self.trial.lock().count(rows, passes.count_set_bits(), self.worthwhile_percent);
        Ok(Some(passes))
    }
}

/// Whether a condition pays, found out batch by batch.
#[derive(Debug, Default)]
struct Trial {
    batches: usize,
    rows: usize,
    left: usize,
    /// Batches still to pass untouched.
    rest: usize,
}

impl Trial {
    /// Whether the next batch passes untouched.
    fn rests(&mut self) -> bool {
        let rests = self.rest > 0;
        self.rest = self.rest.saturating_sub(1);
        rests
    }

    fn count(&mut self, rows: usize, left: usize, worthwhile_percent: usize) {
        self.batches += 1;
        self.rows += rows;
        self.left += left;
        if self.batches < TRIAL_BATCHES {
            return;
        }
        let dropped = self.rows - self.left;
        let rest = if dropped * 100 < self.rows * worthwhile_percent { REST_BATCHES } else { 0 };
        *self = Self { rest, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{BinaryExpr, DynamicFilterPhysicalExpr, col, lit};
    use futures::TryStreamExt;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]))
    }

    fn below(limit: i64) -> Arc<dyn PhysicalExpr> {
        Arc::new(BinaryExpr::new(col("a", &schema()).unwrap(), Operator::Lt, lit(limit)))
    }

    /// How many of `batches` times a hundred rows pass.
    async fn left(filter: Arc<dyn PhysicalExpr>, wanted: Wanted, batches: i64) -> usize {
        let batch = |n: i64| {
            let values = Int64Array::from_iter_values(n * 100..n * 100 + 100);
            Ok(RecordBatch::try_new(schema(), vec![Arc::new(values)]).unwrap())
        };
        let filters = EarlyFilters::new(Some(filter), wanted, &schema(), &[Some(0)]).unwrap();
        let batches = stream::iter((0..batches).map(batch).collect::<Vec<_>>()).boxed();
        let left: Vec<_> = Arc::new(filters).over(batches, schema(), 64).try_collect().await.unwrap();
        left.iter().map(RecordBatch::num_rows).sum()
    }

    #[tokio::test]
    async fn a_filter_that_is_known_late_drops_rows_from_then_on() {
        let dynamic = Arc::new(DynamicFilterPhysicalExpr::new(vec![col("a", &schema()).unwrap()], lit(true)));
        assert_eq!(left(dynamic.clone(), Wanted::Dynamic, 4).await, 400, "nothing is known");
        dynamic.update(below(150)).unwrap();
        assert_eq!(left(dynamic, Wanted::Dynamic, 4).await, 150);
        assert_eq!(left(below(150), Wanted::Dynamic, 4).await, 400, "it is known before");
    }

    #[tokio::test]
    async fn a_filter_that_drops_little_rests() {
        // Drops the last row only, which comes after the trial of the first batches.
        assert_eq!(left(below(1999), Wanted::All, 20).await, 2000);
        assert_eq!(left(below(100), Wanted::All, 20).await, 100);
    }

    #[tokio::test]
    async fn a_condition_that_fails_is_left_to_others() {
        let seventh = Arc::new(BinaryExpr::new(lit(7i64), Operator::Divide, col("a", &schema()).unwrap()));
        let divides = Arc::new(BinaryExpr::new(seventh, Operator::Gt, lit(1i64)));
        assert_eq!(left(divides, Wanted::All, 2).await, 200);
    }
}
