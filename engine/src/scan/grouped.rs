//! Groups by a text that is kept as codes: rows are counted by their codes, and no text is made or hashed.
//!
//! ```text
//! AggregateExec(Partial, by one text) ─ DataSourceExec(LakeSource)
//!          │ prepare, where the text of the first row group is kept as codes
//!          ▼
//! CodeGroupsExec ─ DataSourceExec(LakeSource that hands codes on)
//! ```
//! A dictionary of some thousand rows names each of its texts once; a text is looked up once for each of them, and
//! a row finds its group by its code. Between these two nodes a batch has a dictionary where the schema says text,
//! or the text itself, where a segment had too many values: nothing else stands between them.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray, StringViewBuilder, UInt8Array,
};
use arrow::datatypes::{DataType, SchemaRef, UInt8Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Groups of a task that are handed on when there are so many; the final aggregation puts them together.
const MOST_GROUPS: usize = 1 << 16;
/// About what a text and its place in the table of groups take.
const BYTES_OF_PLACE: usize = 64;

/// The column of its input by whose codes an aggregation could group.
pub(super) fn by_one_text(plan: &Arc<dyn ExecutionPlan>) -> Option<(&AggregateExec, usize)> {
    let aggregate = plan.downcast_ref::<AggregateExec>()?;
    let groups = aggregate.group_expr();
    let ([(by, _)], true) = (groups.expr(), groups.is_single()) else { return None };
    let by = by.downcast_ref::<Column>()?.index();
    let others = |column: usize| column != by;
    let suits = *aggregate.mode() == AggregateMode::Partial
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.limit_options().is_none()
        && aggregate.filter_expr().iter().all(Option::is_none)
        && *aggregate.input_schema().field(by).data_type() == DataType::Utf8View
        && aggregate.aggr_expr().iter().all(|function| {
            let columns = function.expressions();
            let mut columns = columns.iter().flat_map(collect_columns);
            function.groups_accumulator_supported()
                && function.order_bys().is_empty()
                && columns.all(|column| others(column.index()))
        });
    suits.then_some((aggregate, by))
}

#[derive(Debug)]
pub(super) struct CodeGroupsExec {
    /// What it stands for.
    aggregate: AggregateExec,
    by: usize,
    input: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
}

impl CodeGroupsExec {
    pub(super) fn new(aggregate: AggregateExec, by: usize, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { aggregate, by, input, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for CodeGroupsExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodeGroupsExec: ")?;
        self.aggregate.fmt_as(format, f)
    }
}

impl ExecutionPlan for CodeGroupsExec {
    fn name(&self) -> &str {
        "CodeGroupsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.aggregate.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        self.aggregate.apply_expressions(visit)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let [input] = children.as_slice() else { return internal_err!("CodeGroupsExec has one input") };
        Ok(Arc::new(Self::new(self.aggregate.clone(), self.by, Arc::clone(input))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let memory = MemoryConsumer::new(format!("CodeGroupsExec[{partition}]"))
            .with_can_spill(true)
            .register(context.memory_pool());
        let groups = Groups::new(&self.aggregate, self.by, memory)?;
        let input = self.input.execute(partition, context)?;
        let rows = stream::try_unfold((groups, input, false), move |(mut groups, mut input, ended)| {
            let metrics = metrics.clone();
            async move {
                if ended {
                    return Ok(None);
                }
                while let Some(batch) = input.try_next().await? {
                    let timer = metrics.elapsed_compute().timer();
                    groups.count(&batch)?;
                    if groups.must_go()? {
                        let batch = groups.emit()?.record_output(&metrics);
                        return Ok(Some((batch, (groups, input, false))));
                    }
                    timer.done();
                }
                let batch = groups.emit()?.record_output(&metrics);
                Ok(Some((batch, (groups, input, true))))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows.boxed())))
    }
}

struct Function {
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    groups: Box<dyn GroupsAccumulator>,
}

/// The groups of a task.
struct Groups {
    schema: SchemaRef,
    by: usize,
    functions: Vec<Function>,
    /// The group of each text, and of NULL.
    places: HashMap<Option<Box<str>>, usize>,
    /// The dictionary of the batch before, and the group of each of its texts.
    known: Option<(ArrayRef, Vec<usize>)>,
    rows: Vec<usize>,
    memory: MemoryReservation,
}

impl Groups {
    fn new(aggregate: &AggregateExec, by: usize, memory: MemoryReservation) -> DfResult<Self> {
        let functions = aggregate.aggr_expr().iter().map(|function| {
            let groups = function.create_groups_accumulator()?;
            Ok(Function { arguments: function.expressions(), groups })
        });
        Ok(Self {
            schema: aggregate.schema(),
            by,
            functions: functions.collect::<DfResult<_>>()?,
            places: HashMap::new(),
            known: None,
            rows: Vec::new(),
            memory,
        })
    }

    fn count(&mut self, batch: &RecordBatch) -> DfResult<()> {
        let texts = batch.column(self.by);
        match texts.data_type() {
            DataType::Utf8View => {
                let places = &mut self.places;
                self.rows = texts.as_string_view().iter().map(|text| place(places, text)).collect();
            }
            _ => self.find_by_codes(texts),
        }
        for function in &mut self.functions {
            let arguments = function.arguments.iter();
            let arguments = arguments.map(|argument| argument.evaluate(batch)?.into_array(batch.num_rows()));
            let arguments = arguments.collect::<DfResult<Vec<_>>>()?;
            function.groups.update_batch(&arguments, &self.rows, None::<&BooleanArray>, self.places.len())?;
        }
        Ok(())
    }

    fn find_by_codes(&mut self, texts: &ArrayRef) {
        let dictionary = texts.as_dictionary::<UInt8Type>();
        let values = dictionary.values();
        let same = self.known.as_ref().is_some_and(|(before, _)| Arc::ptr_eq(before, values));
        if !same {
            let texts: &StringViewArray = values.as_string_view();
            let places = texts.iter().map(|text| place(&mut self.places, text)).collect();
            self.known = Some((Arc::clone(values), places));
        }
        let Some((_, known)) = &self.known else { return };
        let codes: &UInt8Array = dictionary.keys();
        self.rows.clear();
        match codes.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => self.rows.extend(codes.values().iter().map(|code| known[usize::from(*code)])),
            Some(_) => {
                let null = place(&mut self.places, None);
                self.rows.extend(codes.iter().map(|code| code.map_or(null, |code| known[usize::from(code)])));
            }
        }
    }

    /// Whether the groups have to be handed on before the input has ended: for their number, or for memory.
    fn must_go(&mut self) -> DfResult<bool> {
        let texts = self.places.len() * BYTES_OF_PLACE;
        let size = self.functions.iter().map(|function| function.groups.size()).sum::<usize>() + texts;
        match self.memory.try_resize(size) {
            Ok(()) => Ok(self.places.len() >= MOST_GROUPS),
            Err(error) if self.places.len() <= 1 => Err(error),
            Err(_) => Ok(true),
        }
    }

    fn emit(&mut self) -> DfResult<RecordBatch> {
        let mut texts: Vec<(Option<Box<str>>, usize)> = self.places.drain().collect();
        texts.sort_unstable_by_key(|(_, place)| *place);
        let mut names = StringViewBuilder::with_capacity(texts.len());
        texts.iter().for_each(|(text, _)| names.append_option(text.as_ref()));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(names.finish())];
        for function in &mut self.functions {
            columns.extend(function.groups.state(EmitTo::All)?);
        }
        self.known = None;
        self.memory.free();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

fn place(places: &mut HashMap<Option<Box<str>>, usize>, text: Option<&str>) -> usize {
    let next = places.len();
    *places.entry(text.map(Box::from)).or_insert(next)
}
