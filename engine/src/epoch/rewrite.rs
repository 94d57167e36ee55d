//! Gives a planned query its memory: from a plan of one bounded query to the plan of an epoch.
//!
//! ```text
//! AggregateExec(final)                        KeyedAggregateExec
//!   RepartitionExec                   ─▶        RepartitionExec(hash, K) ─ AggregateExec(partial) ─ …
//!     AggregateExec(partial) ─ …                state descriptors
//!
//! IngestExec                          ─▶      DeduplicateExec
//!                                               RepartitionExec(hash, K) ─ IngestExec
//!                                               state descriptors
//! ```
//! It runs on the optimised physical plan, so that no optimiser rule moves or removes what it puts in.

use crate::epoch::{EpochScope, EventTime};
use crate::exec::{
    DeduplicateExec, DeduplicateSpec, IngestExec, KeyedAggregateExec, KeyedAggregateSpec, WindowColumn,
    descriptors, state_template,
};
use crate::{from_datafusion, to_datafusion};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Partitioning, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemill_core::epoch::StateRef;
use tidemill_core::{Code, Epoch, Error, Result};

/// What the rewrite is told about the pipeline and its epoch.
#[derive(Clone, Debug)]
pub struct Memory {
    pub scope: EpochScope,
    /// Number of buckets, kept with the pipeline.
    pub buckets: u32,
    /// The state before the epoch; a bucket that is not named has none.
    pub state: Vec<StateRef>,
    /// Delta files of a bucket before a new base is written.
    pub state_deltas: usize,
    /// `None` for a source without a watermark.
    pub event_time: Option<EventTime>,
    /// Key columns of a deduplication, directly above the source.
    pub deduplicate_by: Option<Vec<String>>,
}

/// The plan of an epoch, and the operators of which a report is due for every bucket.
#[derive(Clone, Debug)]
pub struct Remembering {
    pub plan: Arc<dyn ExecutionPlan>,
    pub stateful: BTreeMap<String, u32>,
}

/// See the module. Fails with `Code::Unsupported` for a plan that needs memory of another kind.
pub fn remember(plan: Arc<dyn ExecutionPlan>, memory: &Memory) -> Result<Remembering> {
    let mut stateful = BTreeMap::new();
    let plan = plan
        .transform_down(|node| {
            let rewritten = keyed_aggregate(&node, memory).map_err(to_datafusion)?;
            Ok(match rewritten {
                Some(plan) => {
                    stateful.insert(crate::exec::AGGREGATE.to_owned(), memory.buckets);
                    Transformed::yes(plan)
                }
                None => Transformed::no(node),
            })
        })
        .and_then(|outcome| {
            outcome.data.transform_up(|node| {
                let Some(key) = memory.deduplicate_by.as_ref().filter(|_| node.is::<IngestExec>()) else {
                    return Ok(Transformed::no(node));
                };
                stateful.insert(crate::exec::DEDUPLICATE.to_owned(), memory.buckets);
                deduplicate(node, key, memory).map(Transformed::yes).map_err(to_datafusion)
            })
        })
        .map_err(from_datafusion)?
        .data;
    Ok(Remembering { plan, stateful })
}

/// The keyed form of a whole aggregation whose final step is `node`.
fn keyed_aggregate(node: &Arc<dyn ExecutionPlan>, memory: &Memory) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(last) = node.downcast_ref::<AggregateExec>() else { return Ok(None) };
    let partial = match last.mode() {
        AggregateMode::Final | AggregateMode::FinalPartitioned => partial_below(last.input()),
        AggregateMode::Single | AggregateMode::SinglePartitioned => Some(partial_of(last)?),
        // Already below a rewritten one.
        AggregateMode::Partial | AggregateMode::PartialReduce => return Ok(None),
    };
    let Some(partial) = partial else {
        return Err(Error::internal("a final aggregation without a partial one below it"));
    };
    let window = window_column(&partial, memory)?;
    let partial: Arc<dyn ExecutionPlan> = Arc::new(partial);
    let aggregate = |plan: &Arc<dyn ExecutionPlan>| match plan.downcast_ref::<AggregateExec>() {
        Some(aggregate) => Ok(aggregate.clone()),
        None => Err(Error::internal("the partial aggregation is gone")),
    };
    let template = aggregate(&partial)?;
    let keys: Vec<Arc<dyn PhysicalExpr>> = template.output_group_expr();
    let shuffled = hash(partial, keys, memory)?;
    let merge = state_template(&template, AggregateMode::PartialReduce, shuffled.clone());
    let merge = Arc::new(merge.map_err(from_datafusion)?);
    let finish = state_template(&template, AggregateMode::FinalPartitioned, merge.clone());
    let finish = Arc::new(finish.map_err(from_datafusion)?);
    let spec = KeyedAggregateSpec { scope: memory.scope.clone(), window, state_deltas: memory.state_deltas };
    let right = state_leaf(crate::exec::AGGREGATE, memory)?;
    Ok(Some(Arc::new(KeyedAggregateExec::new(Arc::new(spec), merge, finish, shuffled, right))))
}

/// The partial aggregation below a final one, through what only moves rows.
fn partial_below(plan: &Arc<dyn ExecutionPlan>) -> Option<AggregateExec> {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return (*aggregate.mode() == AggregateMode::Partial).then(|| aggregate.clone());
    }
    match plan.children().as_slice() {
        [child] if plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() => {
            partial_below(child)
        }
        _ => None,
    }
}

/// A single-step aggregation as the partial one that it would begin with.
fn partial_of(single: &AggregateExec) -> Result<AggregateExec> {
    let mut input = single.input();
    while input.is::<CoalescePartitionsExec>() || input.is::<RepartitionExec>() {
        input = input.children()[0];
    }
    AggregateExec::try_new(
        AggregateMode::Partial,
        single.group_expr().clone(),
        single.aggr_expr().to_vec(),
        single.filter_expr().to_vec(),
        input.clone(),
        single.input_schema(),
    )
    .map_err(from_datafusion)
}

/// Finds the window among the group columns: without one no group would ever be complete.
fn window_column(partial: &AggregateExec, memory: &Memory) -> Result<WindowColumn> {
    let size = memory.event_time.as_ref().and_then(|time| time.window);
    let groups = partial.group_expr();
    if groups.has_grouping_set() {
        return Err(Error::new(Code::Unsupported, "GROUPING SETS, CUBE and ROLLUP in a streaming table")
            .hint("use one streaming table for each grouping"));
    }
    let find = |name: &str| groups.expr().iter().position(|(_, alias)| alias == name);
    match (size, find("window_end"), find("window_start")) {
        (Some(_), Some(index), _) => Ok(WindowColumn { index, to_end_ms: 0 }),
        (Some(size), None, Some(index)) => Ok(WindowColumn { index, to_end_ms: size.size_ms }),
        _ => Err(Error::new(Code::Unsupported, "an aggregate in a streaming table without a window")
            .hint("select FROM TUMBLE(source, ts, INTERVAL '1 minute') and GROUP BY window_start")),
    }
}

/// `IngestExec` with only the first row of each key.
fn deduplicate(
    ingest: Arc<dyn ExecutionPlan>,
    key: &[String],
    memory: &Memory,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(event_time) = memory.event_time.clone() else {
        return Err(Error::new(Code::Unsupported, "DEDUPLICATE over a source without a watermark")
            .hint("declare WATERMARK FOR … in CREATE SOURCE: it bounds how long keys are kept"));
    };
    let schema = ingest.schema();
    let columns = key
        .iter()
        .map(|name| Ok(Arc::new(Column::new(name, schema.index_of(name)?)) as Arc<dyn PhysicalExpr>))
        .collect::<Result<Vec<_>>>()?;
    let left = hash(ingest, columns, memory)?;
    let right = state_leaf(crate::exec::DEDUPLICATE, memory)?;
    let spec = DeduplicateSpec {
        scope: memory.scope.clone(),
        key: key.to_vec(),
        event_time,
        state_deltas: memory.state_deltas,
    };
    Ok(Arc::new(DeduplicateExec::new(Arc::new(spec), left, right)))
}

fn hash(
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    memory: &Memory,
) -> Result<Arc<dyn ExecutionPlan>> {
    debug_assert!(input.output_partitioning().partition_count() > 0);
    let partitioning = Partitioning::Hash(keys, memory.buckets as usize);
    Ok(Arc::new(RepartitionExec::try_new(input, partitioning).map_err(from_datafusion)?))
}

/// One descriptor for every bucket of an operator.
fn state_leaf(operator: &str, memory: &Memory) -> Result<Arc<dyn ExecutionPlan>> {
    let buckets: Vec<StateRef> = (0..memory.buckets)
        .map(|bucket| {
            let known =
                memory.state.iter().find(|state| state.operator == operator && state.bucket == bucket);
            known.cloned().unwrap_or_else(|| StateRef {
                operator: operator.to_owned(),
                bucket,
                epoch: Epoch::NONE,
                files: Vec::new(),
            })
        })
        .collect();
    descriptors(&buckets)
}
