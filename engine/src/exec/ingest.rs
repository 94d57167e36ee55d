//! `IngestExec`: from a split's range to rows of the query.
//!
//! ```text
//! descriptor (SplitRange) ─▶ SplitReader ─▶ decode ─▶ event time ─▶ expectations ─▶ late? ─▶ rows
//!                                             └──────────┴──────────────┴▶ dead letters
//! ```
//! Every record is decoded against the whole declaration of its source, so that whether a record is good does
//! not depend on what a query happens to read.

use crate::codec::{Decoder as PlanDecoder, Encoder, Portable};
use crate::decode::{Decoded, Decoder, DecoderSpec};
use crate::epoch::{EpochScope, EventTime, to_millis};
use crate::exec::dead_letters::DeadLetters;
use crate::exec::{descriptor, unary_properties};
use crate::{Services, from_datafusion, to_datafusion};
use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tidemill_core::epoch::{Counts, TaskReport};
use tidemill_core::{Code, Error, RawBatch, Result, SinkSpec, SourceSpec, SplitRange, SplitReader};
use tokio::sync::mpsc::Sender;

/// Payload bytes decoded at once: a few batches' worth, so that the cost of a step is spread.
const STEP_BYTES: usize = 2 << 20;

/// What happens to a row that violates an expectation. A condition that is NULL holds, as with CHECK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnViolation {
    DeadLetter,
    Drop,
    Fail,
}

/// A condition over the source's declared columns.
#[derive(Clone, Debug)]
pub struct Expectation {
    pub name: String,
    pub condition: Arc<dyn PhysicalExpr>,
    pub on_violation: OnViolation,
}

/// What an [`IngestExec`] does, apart from its expectations and its projection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IngestSpec {
    pub source: SourceSpec,
    pub decoder: DecoderSpec,
    /// All columns that the source declares.
    pub schema: SchemaRef,
    /// `None` for a source without a watermark.
    pub event_time: Option<EventTime>,
    pub dead_letters: SinkSpec,
    pub scope: EpochScope,
}

/// Reads, decodes and checks the ranges that its input describes, one a partition.
#[derive(Debug)]
pub struct IngestExec {
    spec: Arc<IngestSpec>,
    expectations: Arc<Vec<Expectation>>,
    projection: Vec<usize>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl IngestExec {
    /// `projection` names columns of the declared schema; `input` has one [`SplitRange`] a partition.
    pub fn try_new(
        spec: Arc<IngestSpec>,
        expectations: Arc<Vec<Expectation>>,
        projection: Vec<usize>,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        let schema = Arc::new(spec.schema.project(&projection)?);
        let properties = unary_properties(schema, input.output_partitioning().partition_count());
        Ok(Self {
            spec,
            expectations,
            projection,
            input,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    pub fn spec(&self) -> &Arc<IngestSpec> {
        &self.spec
    }

    pub fn expectations(&self) -> &Arc<Vec<Expectation>> {
        &self.expectations
    }

    pub fn projection(&self) -> &[usize] {
        &self.projection
    }
}

impl DisplayAs for IngestExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            self.projection.iter().map(|index| self.spec.schema.field(*index).name().as_str()).collect();
        write!(f, "IngestExec: connector={}, columns=[{}]", self.spec.source.connector, names.join(", "))?;
        for expectation in self.expectations.iter() {
            write!(f, ", {}: {}", expectation.name, expectation.condition)?;
        }
        Ok(())
    }
}

impl ExecutionPlan for IngestExec {
    fn name(&self) -> &str {
        "IngestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        for expectation in self.expectations.iter() {
            if f(&expectation.condition)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        let projection = self.projection.clone();
        let plan = Self::try_new(self.spec.clone(), self.expectations.clone(), projection, input);
        Ok(Arc::new(plan.map_err(to_datafusion)?))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let services = Services::of(&context).map_err(to_datafusion)?;
        let output_rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let task = Task {
            spec: self.spec.clone(),
            expectations: self.expectations.clone(),
            projection: self.projection.clone(),
            services,
        };
        let mut builder = RecordBatchReceiverStream::builder(self.schema(), 2);
        let sender = builder.tx();
        let output = Output { sender, rows: output_rows };
        builder.spawn(async move { task.run(input, output).await.map_err(to_datafusion) });
        Ok(builder.build())
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    spec: IngestSpec,
    projection: Vec<usize>,
    expectations: Vec<(String, OnViolation, Vec<u8>)>,
}

impl Portable for IngestExec {
    const NAME: &'static str = "ingest";

    fn encode(&self, to: &Encoder<'_>) -> Result<Vec<u8>> {
        let expectations = self.expectations.iter().map(|expectation| {
            let condition = to.expr(&expectation.condition)?;
            Ok((expectation.name.clone(), expectation.on_violation, condition))
        });
        let wire = Wire {
            spec: IngestSpec::clone(&self.spec),
            projection: self.projection.clone(),
            expectations: expectations.collect::<Result<_>>()?,
        };
        Ok(serde_json::to_vec(&wire)?)
    }

    fn decode(body: &[u8], inputs: &[Arc<dyn ExecutionPlan>], from: &PlanDecoder<'_>) -> Result<Self> {
        let wire: Wire = from.json(body)?;
        let [input] = inputs else { return Err(Error::internal("IngestExec has one input")) };
        let expectations = wire.expectations.into_iter().map(|(name, on_violation, condition)| {
            let condition = from.expr(&condition, &wire.spec.schema)?;
            Ok(Expectation { name, condition, on_violation })
        });
        let expectations = Arc::new(expectations.collect::<Result<_>>()?);
        Self::try_new(Arc::new(wire.spec), expectations, wire.projection, input.clone())
    }
}

/// One partition at work.
struct Task {
    spec: Arc<IngestSpec>,
    expectations: Arc<Vec<Expectation>>,
    projection: Vec<usize>,
    services: Arc<Services>,
}

/// Where a partition's rows go.
struct Output {
    sender: Sender<DfResult<RecordBatch>>,
    rows: Count,
}

impl Output {
    /// False when nobody listens any more.
    async fn send(&self, batch: RecordBatch) -> bool {
        self.rows.add(batch.num_rows());
        self.sender.send(Ok(batch)).await.is_ok()
    }
}

/// What changes while a partition is read; it moves to the blocking thread and back with every step.
struct Progress {
    reader: Box<dyn SplitReader>,
    decoder: Box<dyn Decoder>,
    counts: Counts,
    max_event_time_ms: Option<i64>,
}

/// What one step gave.
struct Step {
    rows: RecordBatch,
    dead: Option<RecordBatch>,
}

impl Task {
    async fn run(self, input: SendableRecordBatchStream, output: Output) -> Result<()> {
        let Some(range) = descriptor::<SplitRange>(input).await? else { return Ok(()) };
        let task = Arc::new(self);
        let opened = {
            let (task, range) = (task.clone(), range.clone());
            blocking(move || {
                Ok(Progress {
                    reader: task.services.connectors.source(&task.spec.source)?.open(&range)?,
                    decoder: task.spec.decoder.build(task.spec.schema.clone())?,
                    counts: Counts::default(),
                    max_event_time_ms: None,
                })
            })
        };
        let mut progress = opened.await?;
        let mut dead_letters = DeadLetters::new(&task.services, &task.spec.dead_letters, &task.spec.scope)?;
        loop {
            let step = {
                let (task, range) = (task.clone(), range.clone());
                blocking(move || {
                    let step = task.step(&range, &mut progress)?;
                    Ok((progress, step))
                })
            };
            let (returned, step) = step.await?;
            progress = returned;
            let Some(step) = step else { break };
            if let Some(dead) = step.dead {
                dead_letters.write(dead).await?;
            }
            // Whoever listens has gone: the query was cancelled, and nothing must be reported.
            if step.rows.num_rows() > 0 && !output.send(step.rows).await {
                dead_letters.abort().await;
                return Ok(());
            }
        }
        let report = TaskReport {
            operator: "ingest".to_owned(),
            instance: range.split.as_str().to_owned(),
            counts: progress.counts,
            max_event_time_ms: progress.max_event_time_ms,
            dead_letters: dead_letters.close().await?,
            state: None,
        };
        task.services.report(&task.spec.scope, report).await
    }

    fn step(&self, range: &SplitRange, progress: &mut Progress) -> Result<Option<Step>> {
        let Some(raw) = progress.reader.next(STEP_BYTES)? else { return Ok(None) };
        progress.counts.read += raw.payload.len() as u64;
        let mut decoded = progress.decoder.decode(&raw)?;
        let mut dead = Dead::new(&raw, std::mem::take(&mut decoded.rejected));
        let rows = self.check_event_time(decoded, &mut dead, progress)?;
        let rows = self.check_expectations(rows, &mut dead, progress)?;
        progress.counts.accepted += rows.num_rows() as u64;
        progress.counts.dead_letters += dead.rows.len() as u64;
        let rows = rows.project(&self.projection)?;
        let dead = dead.into_batch(&self.spec.scope, range)?;
        Ok(Some(Step { rows, dead }))
    }

    /// Rows without an event time are dead letters; late ones are counted and dropped.
    fn check_event_time(
        &self,
        decoded: Decoded,
        dead: &mut Dead<'_>,
        progress: &mut Progress,
    ) -> Result<Positioned> {
        let rows = Positioned::new(decoded);
        let Some(event_time) = &self.spec.event_time else { return Ok(rows) };
        let index = self.spec.schema.index_of(&event_time.column)?;
        let times = to_millis(rows.batch.column(index))?;
        if let Some(max) = arrow::compute::max(&times) {
            progress.max_event_time_ms = progress.max_event_time_ms.max(Some(max));
        }
        let late_before = self.spec.scope.late_before_ms.unwrap_or(i64::MIN);
        let mut late = 0;
        let keep: BooleanArray = (0..times.len())
            .map(|row| {
                if times.is_null(row) {
                    dead.push(rows.raw_row(row), format!("event time `{}` is null", event_time.column));
                    return Some(false);
                }
                let is_late = event_time.final_at(times.value(row)) <= late_before;
                late += u64::from(is_late);
                Some(!is_late)
            })
            .collect();
        progress.counts.late += late;
        rows.filter(&keep)
    }

    fn check_expectations(
        &self,
        mut rows: Positioned,
        dead: &mut Dead<'_>,
        progress: &mut Progress,
    ) -> Result<RecordBatch> {
        for expectation in self.expectations.iter() {
            let verdict = expectation
                .condition
                .evaluate(&rows.batch)
                .and_then(|value| value.into_array(rows.batch.num_rows()))
                .map_err(from_datafusion)?;
            let verdict = as_boolean_array(&verdict).map_err(from_datafusion)?;
            if verdict.false_count() == 0 {
                continue;
            }
            let keep: BooleanArray = verdict.iter().map(|holds| Some(holds != Some(false))).collect();
            for row in (0..keep.len()).filter(|row| !keep.value(*row)) {
                let reason =
                    format!("expectation `{}` violated: {}", expectation.name, expectation.condition);
                match expectation.on_violation {
                    OnViolation::DeadLetter => dead.push(rows.raw_row(row), reason),
                    OnViolation::Drop => progress.counts.dropped += 1,
                    OnViolation::Fail => {
                        return Err(Error::new(Code::ExpectationFailed, reason)
                            .hint("correct the data or the expectation, then RESUME PIPELINE"));
                    }
                }
            }
            rows = rows.filter(&keep)?;
        }
        Ok(rows.batch)
    }
}

/// Good rows, with the raw record that each came from.
struct Positioned {
    batch: RecordBatch,
    /// `None` while every raw record is here, in order.
    raw_rows: Option<UInt32Array>,
}

impl Positioned {
    fn new(decoded: Decoded) -> Self {
        Self { batch: decoded.batch, raw_rows: decoded.good }
    }

    fn raw_row(&self, row: usize) -> u32 {
        self.raw_rows.as_ref().map_or(row as u32, |rows| rows.value(row))
    }

    fn filter(self, keep: &BooleanArray) -> Result<Self> {
        if keep.true_count() == keep.len() {
            return Ok(self);
        }
        let kept = (0..keep.len()).filter(|row| keep.value(*row)).map(|row| self.raw_row(row));
        let raw_rows = Some(kept.collect());
        Ok(Self { batch: filter_record_batch(&self.batch, keep)?, raw_rows })
    }
}

/// Records of one step that go to the dead letters.
struct Dead<'a> {
    raw: &'a RawBatch,
    rows: Vec<(u32, String)>,
}

impl<'a> Dead<'a> {
    fn new(raw: &'a RawBatch, rows: Vec<(u32, String)>) -> Self {
        Self { raw, rows }
    }

    fn push(&mut self, raw_row: u32, reason: String) {
        self.rows.push((raw_row, reason));
    }

    fn into_batch(mut self, scope: &EpochScope, range: &SplitRange) -> Result<Option<RecordBatch>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        self.rows.sort_by_key(|(row, _)| *row);
        crate::exec::dead_letters::batch(self.raw, &self.rows, scope, range).map(Some)
    }
}

/// Runs blocking work; a panic in it is an error of the task, not a clean end.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal(format!("ingest task ended abnormally: {error}")))?
}
