//! Makes an error of a panic. A panicking task would otherwise end a stream as if it were complete, or take
//! its client's thread along.

use crate::codec::{Decoder, Encoder, Portable};
use crate::{from_datafusion, to_datafusion, wire_error};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt, TryStreamExt};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidemill_core::{Error, Result};

/// `stream`, with a panic inside it as its last item.
pub fn guard(stream: SendableRecordBatchStream) -> SendableRecordBatchStream {
    Box::pin(Guarded { schema: stream.schema(), inner: Some(stream) })
}

struct Guarded {
    schema: SchemaRef,
    /// `None` after a panic: the stream must not be polled again.
    inner: Option<SendableRecordBatchStream>,
}

impl Stream for Guarded {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        // The stream is dropped after a panic, so nobody sees what it left half done.
        match catch_unwind(AssertUnwindSafe(|| inner.poll_next_unpin(context))) {
            Ok(polled) => polled,
            Err(payload) => {
                self.inner = None;
                Poll::Ready(Some(Err(to_datafusion(panicked(payload.as_ref())))))
            }
        }
    }
}

impl RecordBatchStream for Guarded {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let words = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::internal(format!("a task panicked: {words}"))
}

/// An error of ours, in words that survive the way to another node; others as they are.
fn portable(error: DataFusionError) -> DataFusionError {
    match error.find_root() {
        DataFusionError::External(inner) if inner.is::<Error>() => {
            DataFusionError::Execution(wire_error::to_text(&from_datafusion(error)))
        }
        _ => error,
    }
}

/// Guards the root of a task: panics become errors, and errors reach the coordinator whole.
#[derive(Debug)]
pub(crate) struct GuardExec {
    input: Arc<dyn ExecutionPlan>,
}

impl GuardExec {
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        Self { input }
    }
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GuardExec")
    }
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &str {
        "GuardExec"
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

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.input.metrics()
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let opened = catch_unwind(AssertUnwindSafe(|| self.input.execute(partition, context)));
        match opened {
            Ok(stream) => {
                let stream = guard(stream.map_err(portable)?).map_err(portable);
                Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
            }
            Err(payload) => Err(portable(to_datafusion(panicked(payload.as_ref())))),
        }
    }
}

impl Portable for GuardExec {
    const NAME: &'static str = "guard";

    fn encode(&self, _: &Encoder<'_>) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn decode(_: &[u8], inputs: &[Arc<dyn ExecutionPlan>], _: &Decoder<'_>) -> Result<Self> {
        match inputs {
            [input] => Ok(Self::new(input.clone())),
            _ => Err(Error::internal("GuardExec has one input")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_last_item() {
        let schema = Arc::new(Schema::empty());
        let bomb = futures::stream::once(async { panic!("boom") });
        let mut stream = guard(Box::pin(RecordBatchStreamAdapter::new(schema, bomb)));
        let error = stream.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("boom"), "{error}");
        assert!(stream.next().await.is_none());
    }
}
