//! `WriteExec`: every task writes its own files; what comes out is one row for each thing written.
//!
//! Nothing is visible until the driver commits all rows at once, see [`tidemill_core::Sink`].

use crate::codec::{Decoder, Encoder, Portable};
use crate::exec::unary_properties;
use crate::{Services, from_datafusion, to_datafusion};
use arrow::array::{AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int8Type, Schema, SchemaRef, UInt64Type};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use tidemill_core::{Code, Error, Result, SinkSpec, WriteScope, Written};
use uuid::Uuid;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("rows", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("descriptor", DataType::Utf8, false),
    ]))
});

/// What a [`WriteExec`] writes to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteSpec {
    pub sink: SinkSpec,
    /// Its `task` is the prefix of the name of each task.
    pub scope: WriteScope,
    /// A column of type `TINYINT` that says what happens to each row. It is not written, and neither are rows
    /// where it is negative; how often each of its values came is part of what comes out, see [`split_tally`].
    #[serde(default)]
    pub tally: Option<String>,
}

/// How many rows there were of each value of [`WriteSpec::tally`].
pub type Tally = BTreeMap<i8, u64>;

/// The descriptor of a row that is a tally and nothing that was written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TallyDescriptor {
    row_actions: Tally,
}

/// Parts what was written from what was counted.
pub fn split_tally(all: Vec<Written>) -> (Vec<Written>, Tally) {
    let mut tally = Tally::new();
    let mut written = Vec::with_capacity(all.len());
    for one in all {
        match serde_json::from_value::<TallyDescriptor>(one.descriptor.clone()) {
            Ok(counted) => {
                for (value, rows) in counted.row_actions {
                    *tally.entry(value).or_default() += rows;
                }
            }
            Err(_) => written.push(one),
        }
    }
    (written, tally)
}

#[derive(Debug)]
pub struct WriteExec {
    spec: Arc<WriteSpec>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl WriteExec {
    pub fn new(spec: Arc<WriteSpec>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = unary_properties(SCHEMA.clone(), input.output_partitioning().partition_count());
        Self { spec, input, properties }
    }

    pub fn spec(&self) -> &Arc<WriteSpec> {
        &self.spec
    }
}

/// Reads the rows of a [`WriteExec`] back.
pub async fn collect_written(stream: SendableRecordBatchStream) -> Result<Vec<Written>> {
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(from_datafusion)?;
    let mut written = Vec::new();
    for batch in batches {
        let rows = batch.column(0).as_primitive::<UInt64Type>();
        let bytes = batch.column(1).as_primitive::<UInt64Type>();
        let Some(descriptors) = batch.column(2).as_string_opt::<i32>() else {
            return Err(Error::new(Code::Internal, "a write task answered with another schema"));
        };
        for row in 0..batch.num_rows() {
            written.push(Written {
                rows: rows.value(row),
                bytes: bytes.value(row),
                descriptor: serde_json::from_str(descriptors.value(row))?,
            });
        }
    }
    Ok(written)
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriteExec: connector={}, target={}", self.spec.sink.connector, self.spec.sink.target)
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &str {
        "WriteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
        Ok(Arc::new(Self::new(self.spec.clone(), children.swap_remove(0))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let services = Services::of(&context).map_err(to_datafusion)?;
        let spec = self.spec.clone();
        let output = futures::stream::once(async move {
            let written = write(&services, &spec, input).await.map_err(to_datafusion)?;
            to_batch(&written).map_err(to_datafusion)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), output)))
    }
}

impl Portable for WriteExec {
    const NAME: &'static str = "write";

    fn encode(&self, _: &Encoder<'_>) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self.spec.as_ref())?)
    }

    fn decode(body: &[u8], inputs: &[Arc<dyn ExecutionPlan>], from: &Decoder<'_>) -> Result<Self> {
        let [input] = inputs else { return Err(Error::internal("WriteExec has one input")) };
        Ok(Self::new(Arc::new(from.json(body)?), input.clone()))
    }
}

/// Opens the writer only with the first row, so that an empty partition leaves no file.
async fn write(
    services: &Services,
    spec: &WriteSpec,
    mut input: SendableRecordBatchStream,
) -> Result<Vec<Written>> {
    let mut counting =
        spec.tally.as_deref().map(|column| Counting::new(&input.schema(), column)).transpose()?;
    let schema = counting.as_ref().map_or_else(|| input.schema(), |counting| counting.schema.clone());
    let sink = services.connectors.sink(&spec.sink)?;
    let mut writer = None;
    while let Some(batch) = input.next().await {
        let batch = match (batch.map_err(from_datafusion), &mut counting) {
            (Ok(batch), Some(counting)) => counting.take(&batch),
            (batch, _) => batch,
        };
        let outcome = match batch {
            Ok(batch) if batch.num_rows() == 0 => continue,
            Ok(batch) => {
                let open = match &mut writer {
                    Some(open) => open,
                    None => {
                        let task = format!("{}-{}", spec.scope.task, Uuid::new_v4().simple());
                        let scope = WriteScope { task, ..spec.scope.clone() };
                        writer.insert(sink.writer(&scope, &schema).await?)
                    }
                };
                open.write(batch).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            if let Some(writer) = writer {
                writer.abort().await;
            }
            return Err(error);
        }
    }
    let mut written = match writer {
        Some(writer) => writer.close().await?,
        None => Vec::new(),
    };
    if let Some(counting) = counting {
        let descriptor = serde_json::to_value(TallyDescriptor { row_actions: counting.tally })?;
        written.push(Written { rows: 0, bytes: 0, descriptor });
    }
    Ok(written)
}

/// Counts rows by what happens to them, and lets those pass that are to be written.
struct Counting {
    column: usize,
    /// Of what passes.
    schema: SchemaRef,
    tally: Tally,
}

impl Counting {
    fn new(input: &Schema, column: &str) -> Result<Self> {
        let column = input.index_of(column)?;
        let rest: Vec<usize> = (0..input.fields().len()).filter(|index| *index != column).collect();
        Ok(Self { column, schema: Arc::new(input.project(&rest)?), tally: Tally::new() })
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut rest = batch.clone();
        let actions = rest.remove_column(self.column);
        let Some(actions) = actions.as_primitive_opt::<Int8Type>() else {
            return Err(Error::internal("the column with what happens to a row is no TINYINT"));
        };
        for action in actions.iter().flatten() {
            *self.tally.entry(action).or_default() += 1;
        }
        let stays: BooleanArray = actions.iter().map(|action| action.map(|action| action >= 0)).collect();
        match stays.true_count() == rest.num_rows() {
            true => Ok(rest),
            false => Ok(filter_record_batch(&rest, &stays)?),
        }
    }
}

fn to_batch(written: &[Written]) -> Result<RecordBatch> {
    let descriptors: Result<Vec<String>, _> =
        written.iter().map(|written| serde_json::to_string(&written.descriptor)).collect();
    Ok(RecordBatch::try_new(
        SCHEMA.clone(),
        vec![
            Arc::new(UInt64Array::from_iter_values(written.iter().map(|written| written.rows))),
            Arc::new(UInt64Array::from_iter_values(written.iter().map(|written| written.bytes))),
            Arc::new(StringArray::from(descriptors?)),
        ],
    )?)
}
