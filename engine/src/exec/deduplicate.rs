//! `DeduplicateExec`: lets the first row of each key pass, across epochs, within the watermark.
//!
//! A key is kept until a second row of the same event time would be late anyway. Rows with a null in the key
//! pass: nothing says that they are the same.

use crate::codec::{Decoder, Encoder, Portable};
use crate::epoch::{EpochScope, EventTime, StateStore, to_millis};
use crate::exec::{descriptor, unary_properties};
use crate::{Services, from_datafusion, to_datafusion};
use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use tidemill_core::epoch::{Counts, StateFile, StateRef, TaskReport};
use tidemill_core::{Error, Result};

/// Name of the operator in state and reports.
pub const OPERATOR: &str = "dedup";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeduplicateSpec {
    pub scope: EpochScope,
    /// Names of the key columns.
    pub key: Vec<String>,
    pub event_time: EventTime,
    /// Delta files of a bucket before a new base is written.
    pub state_deltas: usize,
}

/// See the module. The left input is hash-partitioned by the key into buckets.
#[derive(Debug)]
pub struct DeduplicateExec {
    spec: Arc<DeduplicateSpec>,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DeduplicateExec {
    pub fn new(
        spec: Arc<DeduplicateSpec>,
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
    ) -> Self {
        let properties = unary_properties(left.schema(), left.output_partitioning().partition_count());
        Self { spec, left, right, properties, metrics: ExecutionPlanMetricsSet::new() }
    }

    pub fn spec(&self) -> &Arc<DeduplicateSpec> {
        &self.spec
    }
}

impl DisplayAs for DeduplicateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeduplicateExec: key=[{}]", self.spec.key.join(", "))
    }
}

impl ExecutionPlan for DeduplicateExec {
    fn name(&self) -> &str {
        "DeduplicateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::UnspecifiedDistribution; 2]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; 2]
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
        let right = children.swap_remove(1);
        let left = children.swap_remove(0);
        Ok(Arc::new(Self::new(self.spec.clone(), left, right)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let mut left = self.left.execute(partition, context.clone())?;
        let right = self.right.execute(partition, context.clone())?;
        let output_rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let services = Services::of(&context).map_err(to_datafusion)?;
        let spec = self.spec.clone();
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), 2);
        let sender = builder.tx();
        builder.spawn(async move {
            let Some(before) = descriptor::<StateRef>(right).await.map_err(to_datafusion)? else {
                return Ok(());
            };
            let schema = left.schema();
            let mut bucket = Bucket::open(&spec, &services, before, &schema).await.map_err(to_datafusion)?;
            while let Some(batch) = left.next().await {
                let first = bucket.first_rows(&batch?).map_err(to_datafusion)?;
                output_rows.add(first.num_rows());
                if first.num_rows() > 0 && sender.send(Ok(first)).await.is_err() {
                    return Ok(());
                }
            }
            bucket.close(&services).await.map_err(to_datafusion)
        });
        Ok(builder.build())
    }
}

impl Portable for DeduplicateExec {
    const NAME: &'static str = "deduplicate";

    fn encode(&self, _: &Encoder<'_>) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self.spec.as_ref())?)
    }

    fn decode(body: &[u8], inputs: &[Arc<dyn ExecutionPlan>], from: &Decoder<'_>) -> Result<Self> {
        let [left, right] = inputs else { return Err(Error::internal("DeduplicateExec has two inputs")) };
        Ok(Self::new(Arc::new(from.json(body)?), left.clone(), right.clone()))
    }
}

static STATE_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Binary, false),
        Field::new("final_at_ms", DataType::Int64, false),
    ]))
});

/// Keys in their row encoding, with the moment from which they are not needed any more.
type Seen = HashMap<Box<[u8]>, i64>;

struct Bucket {
    spec: Arc<DeduplicateSpec>,
    store: StateStore,
    before: StateRef,
    seen: Seen,
    /// Keys first seen in this epoch: the delta.
    new: Vec<(Box<[u8]>, i64)>,
    converter: RowConverter,
    key: Vec<usize>,
    time: usize,
    duplicates: u64,
}

impl Bucket {
    async fn open(
        spec: &Arc<DeduplicateSpec>,
        services: &Services,
        before: StateRef,
        schema: &SchemaRef,
    ) -> Result<Self> {
        let store = StateStore::new(services, &spec.scope)?;
        let key: Vec<usize> = spec.key.iter().map(|name| schema.index_of(name)).collect::<Result<_, _>>()?;
        let fields = key.iter().map(|index| SortField::new(schema.field(*index).data_type().clone()));
        let cached = services.state.take::<Seen>(&spec.scope.pipeline, &before).and_then(Arc::into_inner);
        let seen = match cached {
            Some(seen) => seen,
            None => from_batches(&store.read(&before.files).await?)?,
        };
        Ok(Self {
            converter: RowConverter::new(fields.collect())?,
            time: schema.index_of(&spec.event_time.column)?,
            spec: spec.clone(),
            new: Vec::new(),
            duplicates: 0,
            store,
            before,
            seen,
            key,
        })
    }

    /// The rows whose key was not seen before.
    fn first_rows(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = self.key.iter().map(|index| batch.column(*index).clone()).collect();
        let rows = self.converter.convert_columns(&columns)?;
        let times = to_millis(batch.column(self.time))?;
        let mut keep = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            if columns.iter().any(|column| column.is_null(row)) {
                keep.push(true);
                continue;
            }
            let key = rows.row(row);
            let is_new = !self.seen.contains_key(key.as_ref());
            if is_new {
                let final_at = self.spec.event_time.final_at(times.value(row));
                let key: Box<[u8]> = key.as_ref().into();
                self.new.push((key.clone(), final_at));
                self.seen.insert(key, final_at);
            }
            self.duplicates += u64::from(!is_new);
            keep.push(is_new);
        }
        Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
    }

    /// Forgets what is final, writes the state, and reports.
    async fn close(mut self, services: &Services) -> Result<()> {
        let close_before = self.spec.scope.close_before_ms.unwrap_or(i64::MIN);
        self.seen.retain(|_, final_at| *final_at > close_before);
        self.new.retain(|(_, final_at)| *final_at > close_before);
        let files = self.keep().await?;
        let after = StateRef { epoch: self.spec.scope.epoch, files, ..self.before };
        let bytes = self.seen.keys().map(|key| key.len() + 48).sum();
        services.state.put(&self.spec.scope.pipeline, &after, bytes, Arc::new(self.seen));
        let report = TaskReport {
            operator: OPERATOR.to_owned(),
            instance: after.bucket.to_string(),
            counts: Counts { duplicates: self.duplicates, ..Counts::default() },
            max_event_time_ms: None,
            dead_letters: Vec::new(),
            state: Some(after),
        };
        services.report(&self.spec.scope, report).await
    }

    async fn keep(&self) -> Result<Vec<StateFile>> {
        if self.seen.is_empty() {
            return Ok(Vec::new());
        }
        let (bucket, epoch) = (self.before.bucket, self.spec.scope.epoch);
        if self.before.files.is_empty() || self.before.files.len() > self.spec.state_deltas {
            let base = to_batch(self.seen.iter().map(|(key, at)| (key.as_ref(), *at)))?;
            return Ok(vec![self.store.write(OPERATOR, bucket, epoch, &STATE_SCHEMA, &[base]).await?]);
        }
        let mut files = self.before.files.clone();
        if !self.new.is_empty() {
            let delta = to_batch(self.new.iter().map(|(key, at)| (key.as_ref(), *at)))?;
            files.push(self.store.write(OPERATOR, bucket, epoch, &STATE_SCHEMA, &[delta]).await?);
        }
        Ok(files)
    }
}

fn to_batch<'a>(keys: impl Iterator<Item = (&'a [u8], i64)>) -> Result<RecordBatch> {
    let (keys, times): (Vec<&[u8]>, Vec<i64>) = keys.unzip();
    let columns: Vec<ArrayRef> =
        vec![Arc::new(BinaryArray::from_vec(keys)), Arc::new(Int64Array::from(times))];
    Ok(RecordBatch::try_new(STATE_SCHEMA.clone(), columns)?)
}

fn from_batches(batches: &[RecordBatch]) -> Result<Seen> {
    let mut seen = Seen::new();
    for batch in batches {
        let keys = datafusion::common::cast::as_binary_array(batch.column(0)).map_err(from_datafusion)?;
        let times = datafusion::common::cast::as_int64_array(batch.column(1)).map_err(from_datafusion)?;
        if keys.null_count() > 0 {
            return Err(Error::internal("a state file holds a null key"));
        }
        for (key, time) in keys.iter().flatten().zip(times.values()) {
            seen.insert(key.into(), *time);
        }
    }
    Ok(seen)
}
