//! Groups of rows that are taken as they are kept, so that no text is made or hashed for a row.
//!
//! ```text
//! AggregateExec(Partial) ─ [FilterExec] ─ DataSourceExec(LakeSource)
//!          │ prepare, where the first row group that is kept suits
//!          ▼
//! KeptGroupsExec ─ [FilterExec] ─ DataSourceExec(LakeSource that hands one column on as it is kept)
//! ```
//! By codes: a dictionary of some thousand rows names each of its texts once; a text is looked up once for each of
//! them, and a row finds its group by its code. By ids: the distinct texts of a group are a bitmap of ids, which are
//! those of the whole process. From the scan on a batch has codes or ids where the schema says text, or the text
//! itself, where it is not kept so. No other node may see this: the filter is a node for the plan's shape and for its
//! display, and [`KeptGroupsExec`] does what it says.

mod groups;

use super::Rows;
use super::source::{dictionary_of, handing_on, keeps_codes};
use crate::dictionary::Dictionary;
use crate::functions::count_distinct;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{filter_record_batch, prep_null_mask_filter};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, InputOrderMode, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use groups::Groups;
use std::fmt;
use std::sync::Arc;

/// How a column of texts is kept.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// As places in a dictionary of each segment.
    Codes,
    /// As ids of a dictionary of the process, or so soon.
    Ids(Arc<Dictionary>),
}

/// The aggregation over what is kept, if the node is one that can be.
pub(super) fn over_kept(
    plan: &Arc<dyn ExecutionPlan>,
    rows: Rows,
) -> DfResult<Option<Arc<dyn ExecutionPlan>>> {
    let Some(aggregate) = plan.downcast_ref::<AggregateExec>().filter(|aggregate| suits(aggregate)) else {
        return Ok(None);
    };
    let input = aggregate.input();
    let filter = input.downcast_ref::<FilterExec>().filter(|filter| filter.fetch().is_none());
    let scan = filter.map_or(input, FilterExec::input);
    let in_scan = |column: usize| match filter.and_then(|filter| filter.projection().as_ref()) {
        Some(given) => given[column],
        None => column,
    };
    let filtered = filter.map(|filter| collect_columns(filter.predicate())).unwrap_or_default();
    for wanted in [Taken::by_one_text(aggregate), Taken::distinct_texts(aggregate)].into_iter().flatten() {
        let column = in_scan(wanted.column());
        if filtered.iter().any(|by| by.index() == column) {
            continue;
        }
        let (taken, form) = match wanted {
            Wanted::GroupsOf(by) if keeps_codes(scan, column) => (Taken::Groups { by }, Form::Codes),
            Wanted::GroupsOf(_) => continue,
            Wanted::Distinct { function, .. } => {
                let Some(dictionary) = dictionary_of(scan, column) else { continue };
                let stays = rows == Rows::Stay;
                (Taken::Distinct { function, dictionary: dictionary.clone(), stays }, Form::Ids(dictionary))
            }
        };
        let Some(scan) = handing_on(scan, column, form) else { continue };
        let input = match filter {
            Some(_) => {
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                Arc::clone(input).replace_children(vec![scan], options)?
            }
            None => scan,
        };
        return Ok(Some(Arc::new(KeptGroupsExec::new(aggregate.clone(), taken, input))));
    }
    Ok(None)
}

fn suits(aggregate: &AggregateExec) -> bool {
    *aggregate.mode() == AggregateMode::Partial
        && *aggregate.input_order_mode() == InputOrderMode::Linear
        && aggregate.group_expr().is_single()
        && !aggregate.group_expr().expr().is_empty()
        && aggregate.limit_options().is_none()
        && aggregate.filter_expr().iter().all(Option::is_none)
        && aggregate
            .aggr_expr()
            .iter()
            .all(|function| function.groups_accumulator_supported() && function.order_bys().is_empty())
}

/// A column that might be taken as it is kept.
#[derive(Clone, Copy)]
enum Wanted {
    /// The groups are its texts.
    GroupsOf(usize),
    Distinct {
        function: usize,
        of: usize,
    },
}

impl Wanted {
    fn column(self) -> usize {
        match self {
            Wanted::GroupsOf(column) | Wanted::Distinct { of: column, .. } => column,
        }
    }
}

/// What is taken as it is kept.
#[derive(Clone, Debug)]
enum Taken {
    Groups { by: usize },
    Distinct { function: usize, dictionary: Arc<Dictionary>, stays: bool },
}

impl Taken {
    fn by_one_text(aggregate: &AggregateExec) -> Option<Wanted> {
        let [(by, _)] = aggregate.group_expr().expr() else { return None };
        let by = text(aggregate, by)?;
        let free = aggregate.aggr_expr().iter().all(|function| !reads(function, by));
        free.then_some(Wanted::GroupsOf(by))
    }

    fn distinct_texts(aggregate: &AggregateExec) -> Option<Wanted> {
        let functions = aggregate.aggr_expr();
        let counted = functions
            .iter()
            .enumerate()
            .filter(|(_, function)| function.fun().name() == count_distinct().name());
        let (function, of) =
            counted.into_iter().find_map(|(place, function)| match &function.expressions()[..] {
                [argument] => Some((place, text(aggregate, argument)?)),
                _ => None,
            })?;
        let others = functions.iter().enumerate().filter(|(place, _)| *place != function);
        let free = others.into_iter().all(|(_, other)| !reads(other, of))
            && aggregate.group_expr().expr().iter().all(|(by, _)| !has(by, of));
        free.then_some(Wanted::Distinct { function, of })
    }
}

/// The column that the expression is, if that has texts.
fn text(aggregate: &AggregateExec, expression: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let column = expression.downcast_ref::<Column>()?.index();
    (*aggregate.input_schema().field(column).data_type() == DataType::Utf8View).then_some(column)
}

fn reads(function: &AggregateFunctionExpr, column: usize) -> bool {
    function.expressions().iter().any(|argument| has(argument, column))
}

fn has(expression: &Arc<dyn PhysicalExpr>, column: usize) -> bool {
    collect_columns(expression).iter().any(|read| read.index() == column)
}

#[derive(Debug)]
struct KeptGroupsExec {
    /// What it stands for.
    aggregate: AggregateExec,
    taken: Taken,
    input: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
}

impl KeptGroupsExec {
    fn new(aggregate: AggregateExec, taken: Taken, input: Arc<dyn ExecutionPlan>) -> Self {
        Self { aggregate, taken, input, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for KeptGroupsExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.taken {
            Taken::Groups { .. } => "codes",
            Taken::Distinct { .. } => "ids",
        };
        write!(f, "KeptGroupsExec: by={by}, ")?;
        self.aggregate.fmt_as(format, f)
    }
}

impl ExecutionPlan for KeptGroupsExec {
    fn name(&self) -> &str {
        "KeptGroupsExec"
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
        let [input] = children.as_slice() else { return internal_err!("KeptGroupsExec has one input") };
        Ok(Arc::new(Self::new(self.aggregate.clone(), self.taken.clone(), Arc::clone(input))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let memory = MemoryConsumer::new(format!("KeptGroupsExec[{partition}]"))
            .with_can_spill(true)
            .register(context.memory_pool());
        let groups = Groups::new(&self.aggregate, &self.taken, memory)?;
        let (filter, scan) = match self.input.downcast_ref::<FilterExec>() {
            Some(filter) => (Some(Filter::of(filter)), filter.input()),
            None => (None, &self.input),
        };
        let input = scan.execute(partition, context)?.and_then(move |batch| {
            std::future::ready(filter.as_ref().map_or(Ok(batch.clone()), |filter| filter.left(&batch)))
        });
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

/// What a [`FilterExec`] does, on batches that are not of its schema.
struct Filter {
    predicate: Arc<dyn PhysicalExpr>,
    given: Option<Vec<usize>>,
}

impl Filter {
    fn of(filter: &FilterExec) -> Self {
        let given = filter.projection().as_ref().map(|given| given.to_vec());
        Self { predicate: Arc::clone(filter.predicate()), given }
    }

    fn left(&self, batch: &RecordBatch) -> DfResult<RecordBatch> {
        let kept = self.predicate.evaluate(batch)?.into_array(batch.num_rows())?;
        let kept = match kept.as_boolean() {
            kept if kept.null_count() > 0 => prep_null_mask_filter(kept),
            kept => kept.clone(),
        };
        let batch = match kept.true_count() == batch.num_rows() {
            true => batch.clone(),
            false => filter_record_batch(batch, &kept)?,
        };
        match &self.given {
            Some(given) => Ok(batch.project(given)?),
            None => Ok(batch),
        }
    }
}
