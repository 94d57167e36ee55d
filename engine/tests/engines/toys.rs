//! Operators for tests: one that makes rows as its descriptors say, and one that pairs rows with their bucket.

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tidemill_core::{Error, Result};
use tidemill_engine::codec::{Decoder, Encoder, Operator, Portable};
use tidemill_engine::exec::descriptors;
use tidemill_engine::{Services, to_datafusion};

pub(crate) const OPERATORS: &[Operator] = &[Operator::of::<RowsExec>(), Operator::of::<PairExec>()];

/// While set, a descriptor that stalls there does so. Each test has a place of its own.
pub(crate) static STALL: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
/// How many descriptors have stalled there.
pub(crate) static STALLED: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

/// The keys `from .. from + rows`, and how making them goes wrong.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) from: i64,
    pub(crate) rows: i64,
    pub(crate) panics: bool,
    pub(crate) stalls: Option<usize>,
}

impl Rows {
    /// `count` descriptors of `rows` keys each, without gaps.
    pub(crate) fn dense(count: i64, rows: i64) -> Vec<Self> {
        (0..count).map(|index| Self { from: index * rows, rows, ..Self::default() }).collect()
    }
}

fn properties(schema: SchemaRef, partitions: usize) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(partitions),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

fn schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(
        names.iter().map(|name| Field::new(*name, DataType::Int64, false)).collect::<Vec<_>>(),
    ))
}

/// The descriptors of a stream.
async fn read<T: serde::de::DeserializeOwned>(input: SendableRecordBatchStream) -> DfResult<Vec<T>> {
    let batches: Vec<RecordBatch> = input.try_collect().await?;
    let texts = batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten());
    Ok(texts.map(|text| serde_json::from_str(text).unwrap()).collect())
}

/// Columns: `k`, and the batch size of the session in which it was made.
#[derive(Debug)]
pub(crate) struct RowsExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl RowsExec {
    pub(crate) fn of(rows: &[Rows]) -> Arc<Self> {
        Arc::new(Self::over(descriptors(rows).unwrap()))
    }

    fn over(input: Arc<dyn ExecutionPlan>) -> Self {
        let partitions = input.output_partitioning().partition_count();
        Self { input, properties: properties(schema(&["k", "batch_size"]), partitions) }
    }
}

async fn make(input: SendableRecordBatchStream, schema: SchemaRef, batch_size: i64) -> DfResult<RecordBatch> {
    let mut keys = Vec::new();
    for rows in read::<Rows>(input).await? {
        assert!(!rows.panics, "a descriptor says so");
        if let Some(place) = rows.stalls
            && STALL[place].load(Ordering::SeqCst)
        {
            STALLED[place].fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        keys.extend(rows.from..rows.from + rows.rows);
    }
    let sizes = Int64Array::from(vec![batch_size; keys.len()]);
    Ok(RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(keys)), Arc::new(sizes)])?)
}

/// Pairs each row of the left input with the bucket that the right input's descriptor names.
#[derive(Debug)]
pub(crate) struct PairExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl PairExec {
    pub(crate) fn over(left: Arc<dyn ExecutionPlan>, right: Arc<dyn ExecutionPlan>) -> Self {
        let partitions = left.output_partitioning().partition_count();
        Self { left, right, properties: properties(schema(&["bucket", "k"]), partitions) }
    }
}

async fn pair(
    left: SendableRecordBatchStream,
    right: SendableRecordBatchStream,
    schema: SchemaRef,
) -> DfResult<RecordBatch> {
    let buckets: Vec<i64> = read(right).await?;
    let [bucket] = buckets.as_slice() else {
        return Err(to_datafusion(Error::internal(format!("a partition has the buckets {buckets:?}"))));
    };
    let batches: Vec<RecordBatch> = left.try_collect().await?;
    let keys: Int64Array =
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter()).collect();
    let buckets = Int64Array::from(vec![*bucket; keys.len()]);
    Ok(RecordBatch::try_new(schema, vec![Arc::new(buckets), Arc::new(keys)])?)
}

macro_rules! operator {
    ($name:ident, [$($child:ident),*], $context:ident, $partition:ident, $body:expr) => {
        impl DisplayAs for $name {
            fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl ExecutionPlan for $name {
            fn name(&self) -> &str {
                stringify!($name)
            }
            fn properties(&self) -> &Arc<PlanProperties> {
                &self.properties
            }
            fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
                vec![$(&self.$child),*]
            }
            fn benefits_from_input_partitioning(&self) -> Vec<bool> {
                vec![false; self.children().len()]
            }
            fn apply_expressions(
                &self,
                _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
            ) -> DfResult<TreeNodeRecursion> {
                Ok(TreeNodeRecursion::Continue)
            }
            fn with_new_children(
                self: Arc<Self>,
                children: Vec<Arc<dyn ExecutionPlan>>,
            ) -> DfResult<Arc<dyn ExecutionPlan>> {
                let mut children = children.into_iter();
                Ok(Arc::new(Self::over($({ let $child = children.next().unwrap(); $child }),*)))
            }
            fn execute(&self, $partition: usize, $context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
                // Operators need their node's services wherever they run.
                Services::of(&$context).map_err(to_datafusion)?;
                $(let $child = self.$child.execute($partition, $context.clone())?;)*
                let made = futures::stream::once($body(self.schema() $(, $child)*)).boxed();
                Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), made)))
            }
        }

        impl Portable for $name {
            const NAME: &'static str = stringify!($name);
            fn encode(&self, _: &Encoder<'_>) -> Result<Vec<u8>> {
                Ok(Vec::new())
            }
            fn decode(_: &[u8], inputs: &[Arc<dyn ExecutionPlan>], _: &Decoder<'_>) -> Result<Self> {
                let mut inputs = inputs.iter().cloned();
                Ok(Self::over($({ let $child = inputs.next().unwrap(); $child }),*))
            }
        }
    };
}

operator!(RowsExec, [input], context, partition, |schema, input| {
    make(input, schema, context.session_config().batch_size() as i64)
});
operator!(PairExec, [left, right], context, partition, |schema, left, right| pair(left, right, schema));

/// `RowsExec` as a table.
#[derive(Debug)]
pub(crate) struct RowsTable(pub(crate) Vec<Rows>);

#[async_trait::async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        schema(&["k", "batch_size"])
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let rows = RowsExec::of(&self.0);
        let Some(projection) = projection else { return Ok(rows) };
        let schema = rows.schema();
        let column = |index: &usize| {
            let name = schema.field(*index).name().clone();
            (Arc::new(Column::new(&name, *index)) as Arc<dyn PhysicalExpr>, name)
        };
        let columns: Vec<_> = projection.iter().map(column).collect();
        Ok(Arc::new(ProjectionExec::try_new(columns, rows)?))
    }
}
