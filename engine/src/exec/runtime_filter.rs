//! Drops rows early that a join, a limit or an aggregate further up has found to be of no use.
//!
//! DataFusion hands such filters down to the Parquet scan, where by default they only prune row groups and pages;
//! evaluated while a file is decoded they slow down most scans. Here they are evaluated on decoded rows, before
//! these are shuffled, joined and aggregated, and only as long as they drop enough of them.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::scalar::ScalarValue;
use futures::{Stream, StreamExt, ready};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Batches between two decisions on whether the filter is worth its evaluation.
const TRIAL_BATCHES: usize = 8;
/// Batches that pass untouched after a trial that dropped too little: the filter may get stricter meanwhile.
const REST_BATCHES: usize = 56;
/// Of a hundred rows so many must be dropped.
const WORTHWHILE_PERCENT: usize = 25;

/// Passes on the rows for which `predicate` holds, or more of them.
#[derive(Debug)]
pub(crate) struct RuntimeFilterExec {
    input: Arc<dyn ExecutionPlan>,
    /// Over the columns of the input.
    predicate: Arc<dyn PhysicalExpr>,
    metrics: ExecutionPlanMetricsSet,
}

impl RuntimeFilterExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, predicate: Arc<dyn PhysicalExpr>) -> Self {
        Self { input, predicate, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for RuntimeFilterExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimeFilterExec: predicate={}", self.predicate)
    }
}

impl ExecutionPlan for RuntimeFilterExec {
    fn name(&self) -> &str {
        "RuntimeFilterExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        visit(&self.predicate)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0), self.predicate.clone())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let batch_size = context.session_config().batch_size();
        Ok(Box::pin(Filtered {
            input: Some(self.input.execute(partition, context)?),
            predicate: self.predicate.clone(),
            trial: Trial::default(),
            kept: BatchCoalescer::new(self.schema(), batch_size)
                .with_biggest_coalesce_batch_size(Some(batch_size / 2)),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        }))
    }
}

struct Filtered {
    /// `None` after its end.
    input: Option<SendableRecordBatchStream>,
    predicate: Arc<dyn PhysicalExpr>,
    trial: Trial,
    kept: BatchCoalescer,
    metrics: BaselineMetrics,
}

impl Filtered {
    fn push(&mut self, batch: RecordBatch) -> DfResult<()> {
        if self.trial.rests() {
            return Ok(self.kept.push_batch(batch)?);
        }
        match self.predicate.evaluate(&batch)? {
            // The filter is not known yet, or lets everything through.
            ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => self.kept.push_batch(batch)?,
            ColumnarValue::Scalar(_) => {}
            ColumnarValue::Array(keep) => {
                let keep: &BooleanArray = keep.as_boolean();
                self.trial.count(batch.num_rows(), keep.true_count());
                self.kept.push_batch_with_filter(batch, keep)?;
            }
        }
        Ok(())
    }
}

impl Stream for Filtered {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(batch) = this.kept.next_completed_batch() {
                return Poll::Ready(Some(Ok(batch.record_output(&this.metrics))));
            }
            let Some(input) = &mut this.input else {
                this.metrics.done();
                return Poll::Ready(None);
            };
            let item = ready!(input.poll_next_unpin(context));
            let elapsed = this.metrics.elapsed_compute().clone();
            let _timer = elapsed.timer();
            let pushed = match item {
                Some(Ok(batch)) => this.push(batch),
                Some(Err(error)) => Err(error),
                None => {
                    this.input = None;
                    this.kept.finish_buffered_batch().map_err(Into::into)
                }
            };
            if let Err(error) = pushed {
                this.input = None;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl RecordBatchStream for Filtered {
    fn schema(&self) -> SchemaRef {
        self.kept.schema()
    }
}

/// Whether the filter pays, found out batch by batch.
#[derive(Debug, Default)]
struct Trial {
    batches: usize,
    rows: usize,
    kept: usize,
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

    fn count(&mut self, rows: usize, kept: usize) {
        self.batches += 1;
        self.rows += rows;
        self.kept += kept;
        if self.batches < TRIAL_BATCHES {
            return;
        }
        let dropped = self.rows - self.kept;
        let rest = if dropped * 100 < self.rows * WORTHWHILE_PERCENT { REST_BATCHES } else { 0 };
        *self = Self { rest, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{BinaryExpr, DynamicFilterPhysicalExpr, col, lit};
    use futures::TryStreamExt;

    fn input(batches: i64) -> Arc<dyn ExecutionPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        let batch = |n: i64| {
            let values = Int64Array::from_iter_values(n * 100..n * 100 + 100);
            RecordBatch::try_new(schema.clone(), vec![Arc::new(values)]).unwrap()
        };
        let batches: Vec<RecordBatch> = (0..batches).map(batch).collect();
        MemorySourceConfig::try_new_exec(&[batches], schema, None).unwrap()
    }

    async fn rows(plan: Arc<dyn ExecutionPlan>) -> usize {
        let stream = plan.execute(0, Arc::new(TaskContext::default())).unwrap();
        let batches: Vec<_> = stream.try_collect().await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn below(plan: &Arc<dyn ExecutionPlan>, limit: i64) -> Arc<dyn PhysicalExpr> {
        let column = col("a", &plan.schema()).unwrap();
        Arc::new(BinaryExpr::new(column, Operator::Lt, lit(limit)))
    }

    #[tokio::test]
    async fn a_filter_that_is_known_late_drops_rows_from_then_on() {
        let input = input(4);
        let column = col("a", &input.schema()).unwrap();
        let dynamic = Arc::new(DynamicFilterPhysicalExpr::new(vec![column], lit(true)));
        let plan = Arc::new(RuntimeFilterExec::new(input.clone(), dynamic.clone()));
        assert_eq!(rows(plan.clone()).await, 400, "nothing is known");
        dynamic.update(below(&input, 150)).unwrap();
        assert_eq!(rows(plan).await, 150);
    }

    #[tokio::test]
    async fn a_filter_that_drops_little_rests() {
        let input = input(20);
        // Drops the last row only, which comes after the trial of the first batches.
        let plan = Arc::new(RuntimeFilterExec::new(input.clone(), below(&input, 1999)));
        assert_eq!(rows(plan).await, 2000);
        let plan = Arc::new(RuntimeFilterExec::new(input.clone(), below(&input, 100)));
        assert_eq!(rows(plan).await, 100);
    }
}
