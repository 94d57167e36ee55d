//! `KeyedAggregateExec`: windowed aggregates with a memory.
//!
//! ```text
//! left:  partial states of this epoch, hash-shuffled into buckets ───────────────────┐
//! right: one StateRef a bucket ─▶ state before this epoch ──────────────────────────┴▶ merge
//!                                                                                       │
//!                windows that end at or before `close_before` ─▶ final values ─▶ out ◀──┤
//!                all others ─▶ state after this epoch (a delta or a new base)        ◀──┘
//! ```
//! State is DataFusion's own intermediate accumulator state, so every aggregate works in a stream. Merging
//! and finishing run as `AggregateExec` in the modes `PartialReduce` and `Final`.

use crate::codec::{Decoder, Encoder, Portable};
use crate::epoch::{EpochScope, StateStore, to_millis};
use crate::exec::{descriptor, unary_properties};
use crate::{Services, from_datafusion, to_datafusion};
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
    collect,
};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tidemill_core::epoch::{Counts, StateFile, StateRef, TaskReport};
use tidemill_core::{Epoch, Error, Result};

/// Name of the operator in state and reports.
pub const OPERATOR: &str = "aggregate";

/// The group column that tells when a group's window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowColumn {
    /// Index among the group columns.
    pub index: usize,
    /// Milliseconds from the column's value to the window's end: 0 for `window_end`, the size for
    /// `window_start`.
    pub to_end_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyedAggregateSpec {
    pub scope: EpochScope,
    pub window: WindowColumn,
    /// Delta files of a bucket before a new base is written.
    pub state_deltas: usize,
}

/// See the module. The left input is the shuffle itself: engines recognise it, and cut it with the state.
#[derive(Debug)]
pub struct KeyedAggregateExec {
    spec: Arc<KeyedAggregateSpec>,
    /// `PartialReduce` over states; its input is replaced by the states at hand.
    merge: Arc<AggregateExec>,
    /// `Final` over states.
    finish: Arc<AggregateExec>,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl KeyedAggregateExec {
    pub fn new(
        spec: Arc<KeyedAggregateSpec>,
        merge: Arc<AggregateExec>,
        finish: Arc<AggregateExec>,
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
    ) -> Self {
        let properties = unary_properties(finish.schema(), left.output_partitioning().partition_count());
        let metrics = ExecutionPlanMetricsSet::new();
        Self { spec, merge, finish, left, right, properties, metrics }
    }

    pub fn spec(&self) -> &Arc<KeyedAggregateSpec> {
        &self.spec
    }

    /// Templates in the modes `PartialReduce` and `Final`.
    pub fn templates(&self) -> (&Arc<AggregateExec>, &Arc<AggregateExec>) {
        (&self.merge, &self.finish)
    }
}

impl DisplayAs for KeyedAggregateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.merge.aggr_expr().iter().map(|expr| expr.name()).collect();
        write!(f, "KeyedAggregateExec: aggr=[{}]", names.join(", "))
    }
}

impl ExecutionPlan for KeyedAggregateExec {
    fn name(&self) -> &str {
        "KeyedAggregateExec"
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
        let (merge, finish) = (self.merge.clone(), self.finish.clone());
        Ok(Arc::new(Self::new(self.spec.clone(), merge, finish, left, right)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let left = self.left.execute(partition, context.clone())?;
        let right = self.right.execute(partition, context.clone())?;
        let output_rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let services = Services::of(&context).map_err(to_datafusion)?;
        let bucket = Bucket {
            spec: self.spec.clone(),
            merge: self.merge.clone(),
            finish: self.finish.clone(),
            services,
            context,
        };
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), 2);
        let sender = builder.tx();
        builder.spawn(async move {
            for batch in bucket.run(left, right).await.map_err(to_datafusion)? {
                output_rows.add(batch.num_rows());
                if sender.send(Ok(batch)).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        Ok(builder.build())
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    spec: KeyedAggregateSpec,
    merge: Vec<u8>,
    finish: Vec<u8>,
}

impl Portable for KeyedAggregateExec {
    const NAME: &'static str = "keyed_aggregate";

    fn encode(&self, to: &Encoder<'_>) -> Result<Vec<u8>> {
        let wire = Wire {
            spec: KeyedAggregateSpec::clone(&self.spec),
            merge: encode_template(&self.merge, to)?,
            finish: encode_template(&self.finish, to)?,
        };
        Ok(serde_json::to_vec(&wire)?)
    }

    fn decode(body: &[u8], inputs: &[Arc<dyn ExecutionPlan>], from: &Decoder<'_>) -> Result<Self> {
        let wire: Wire = from.json(body)?;
        let [left, right] = inputs else { return Err(Error::internal("KeyedAggregateExec has two inputs")) };
        let template = |bytes: &[u8]| match from.plan(bytes)?.downcast_ref::<AggregateExec>() {
            Some(aggregate) => Ok(Arc::new(aggregate.clone())),
            None => Err(Error::internal("a template is no AggregateExec")),
        };
        let (merge, finish) = (template(&wire.merge)?, template(&wire.finish)?);
        Ok(Self::new(Arc::new(wire.spec), merge, finish, left.clone(), right.clone()))
    }
}

/// A template travels with its input's schema, without its input.
fn encode_template(template: &Arc<AggregateExec>, to: &Encoder<'_>) -> Result<Vec<u8>> {
    let input: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(template.input().schema()));
    let bare = AggregateExec::try_new(
        *template.mode(),
        template.group_expr().clone(),
        template.aggr_expr().to_vec(),
        template.filter_expr().to_vec(),
        input,
        template.input_schema(),
    );
    to.plan(&(Arc::new(bare.map_err(from_datafusion)?) as Arc<dyn ExecutionPlan>))
}

/// The open groups of a bucket, as kept in memory between epochs.
type OpenGroups = Vec<RecordBatch>;

/// One bucket at work.
struct Bucket {
    spec: Arc<KeyedAggregateSpec>,
    merge: Arc<AggregateExec>,
    finish: Arc<AggregateExec>,
    services: Arc<Services>,
    context: Arc<TaskContext>,
}

impl Bucket {
    async fn run(
        &self,
        left: SendableRecordBatchStream,
        right: SendableRecordBatchStream,
    ) -> Result<Vec<RecordBatch>> {
        let Some(before) = descriptor::<StateRef>(right).await? else { return Ok(Vec::new()) };
        let scope = &self.spec.scope;
        let store = StateStore::new(&self.services, scope)?;
        let shuffled: Vec<RecordBatch> = left.try_collect().await.map_err(from_datafusion)?;
        let new = self.merge_groups(&[], &shuffled).await?;
        // A row of overlapping windows comes for all of them; those that are closed already stay closed.
        let (_, new) = self.split(&new, scope.late_before_ms.unwrap_or(i64::MIN))?;
        let old = self.open_groups(&store, &before).await?;

        let merged = self.merge_groups(&old, &new).await?;
        let close_before = scope.close_before_ms.unwrap_or(i64::MIN);
        let (closed, open) = self.split(&merged, close_before)?;
        let files = self.keep(&store, &before, &new, &open, close_before).await?;
        let after = StateRef { epoch: scope.epoch, files, ..before };
        let bytes = open.iter().map(RecordBatch::get_array_memory_size).sum();
        self.services.state.put(&scope.pipeline, &after, bytes, Arc::new(open));

        let closed = self.finish_groups(closed).await?;
        let report = TaskReport {
            operator: OPERATOR.to_owned(),
            instance: after.bucket.to_string(),
            counts: Counts::default(),
            max_event_time_ms: None,
            dead_letters: Vec::new(),
            state: Some(after),
        };
        self.services.report(scope, report).await?;
        Ok(closed)
    }

    /// The groups that were open after the epoch before.
    async fn open_groups(&self, store: &StateStore, before: &StateRef) -> Result<Arc<OpenGroups>> {
        if before.files.is_empty() {
            return Ok(Arc::default());
        }
        if let Some(cached) = self.services.state.take::<OpenGroups>(&self.spec.scope.pipeline, before) {
            return Ok(cached);
        }
        let stored = store.read(&before.files).await?;
        // Files still hold windows that were closed after they were written.
        let late_before = self.spec.scope.late_before_ms.unwrap_or(i64::MIN);
        let (_, open) = self.split(&stored, late_before)?;
        Ok(Arc::new(open))
    }

    async fn merge_groups(&self, old: &[RecordBatch], new: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let states: Vec<RecordBatch> = old.iter().chain(new).cloned().collect();
        match states.len() {
            // One batch may still name a group twice, but none at all needs no work.
            0 => Ok(states),
            _ => self.aggregate(&self.merge, states).await,
        }
    }

    async fn finish_groups(&self, closed: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        if closed.is_empty() {
            return Ok(closed);
        }
        self.aggregate(&self.finish, closed).await
    }

    async fn aggregate(
        &self,
        template: &Arc<AggregateExec>,
        states: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let schema = template.input().schema();
        let input = MemorySourceConfig::try_new_exec(&[states], schema, None).map_err(from_datafusion)?;
        let plan = AggregateExec::try_new(
            *template.mode(),
            template.group_expr().clone(),
            template.aggr_expr().to_vec(),
            template.filter_expr().to_vec(),
            input,
            template.input_schema(),
        )
        .map_err(from_datafusion)?;
        collect(Arc::new(plan), self.context.clone()).await.map_err(from_datafusion)
    }

    /// Groups whose window ends at or before the limit, and the others.
    fn split(&self, groups: &[RecordBatch], limit_ms: i64) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
        let (mut closed, mut open) = (Vec::new(), Vec::new());
        for batch in groups {
            let starts = to_millis(batch.column(self.spec.window.index))?;
            let ended: BooleanArray = (0..starts.len())
                .map(|row| {
                    Some(starts.is_valid(row) && starts.value(row) + self.spec.window.to_end_ms <= limit_ms)
                })
                .collect();
            push_rows(&mut closed, filter_record_batch(batch, &ended)?);
            push_rows(&mut open, filter_record_batch(batch, &not(&ended)?)?);
        }
        Ok((closed, open))
    }

    /// Writes what the next epoch needs: nothing, a delta, or a new base.
    async fn keep(
        &self,
        store: &StateStore,
        before: &StateRef,
        new: &[RecordBatch],
        open: &[RecordBatch],
        close_before_ms: i64,
    ) -> Result<Vec<StateFile>> {
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let epoch: Epoch = self.spec.scope.epoch;
        let schema: SchemaRef = self.merge.schema();
        if before.files.is_empty() || before.files.len() > self.spec.state_deltas {
            return Ok(vec![store.write(OPERATOR, before.bucket, epoch, &schema, open).await?]);
        }
        let mut files = before.files.clone();
        let (_, delta) = self.split(new, close_before_ms)?;
        if !delta.is_empty() {
            files.push(store.write(OPERATOR, before.bucket, epoch, &schema, &delta).await?);
        }
        Ok(files)
    }
}

fn push_rows(batches: &mut Vec<RecordBatch>, batch: RecordBatch) {
    if batch.num_rows() > 0 {
        batches.push(batch);
    }
}

/// The template of `aggregate` in another mode, over an input of states.
pub(crate) fn template(
    aggregate: &AggregateExec,
    mode: AggregateMode,
    states: Arc<dyn ExecutionPlan>,
) -> DfResult<AggregateExec> {
    let group_by = aggregate.group_expr().as_final();
    // A FILTER clause applies to rows, not to states: it has done its work in the partial aggregate.
    let filters = vec![None; aggregate.aggr_expr().len()];
    AggregateExec::try_new(
        mode,
        group_by,
        aggregate.aggr_expr().to_vec(),
        filters,
        states,
        aggregate.input_schema(),
    )
}
