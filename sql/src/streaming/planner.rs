//! Plans one try of one epoch.

use super::StreamingDefinition;
use super::provider::IngestTable;
use super::shape;
use crate::dialect::normalize;
use crate::functions::{RewriteFor, WindowInfo, WindowKind, rewrite_everyday, rewrite_windows};
use crate::statement::{OnViolation, SourceDef};
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement, visit_relations};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use tidemill_core::epoch::StateRef;
use tidemill_core::{Code, Epoch, Error, PipelineId, Result, SinkSpec, SplitRange, WriteScope};
use tidemill_engine::epoch::{EpochScope, EventTime, Memory, WindowSize, remember};
use tidemill_engine::exec::{self, Expectation, IngestSpec, WriteExec, WriteSpec};
use tidemill_engine::from_datafusion;

/// What an epoch is planned with, besides the pipeline's definition.
#[derive(Clone, Debug)]
pub struct EpochInput {
    pub scope: EpochScope,
    pub ranges: Vec<SplitRange>,
    /// State before the epoch.
    pub state: Vec<StateRef>,
    pub table: SinkSpec,
    pub dead_letters: SinkSpec,
    /// Delta state files of a bucket before a new base is written.
    pub state_deltas: usize,
    /// Whether one task writes all results: fewer files where there is one process anyway.
    pub single_writer: bool,
}

/// A plan whose rows are what its tasks wrote (see [`WriteExec`]).
#[derive(Clone, Debug)]
pub struct EpochPlan {
    pub plan: Arc<dyn ExecutionPlan>,
    /// Operators that report once a bucket, with the number of buckets.
    pub stateful: BTreeMap<String, u32>,
}

/// Plans one try of one epoch in a session that has the base's functions and options.
pub async fn plan_epoch(
    base: &SessionState,
    definition: &StreamingDefinition,
    input: &EpochInput,
) -> Result<EpochPlan> {
    let query = plan_query(base, definition, input).await?;
    let memory = Memory {
        scope: input.scope.clone(),
        buckets: definition.buckets,
        state: input.state.clone(),
        state_deltas: input.state_deltas,
        event_time: query.event_time,
        deduplicate_by: query.deduplicate_by,
    };
    let remembering = remember(query.plan, &memory)?;
    let mut plan = remembering.plan;
    if input.single_writer {
        plan = Arc::new(CoalescePartitionsExec::new(plan));
    }
    let spec = WriteSpec {
        sink: input.table.clone(),
        scope: WriteScope {
            job: input.scope.pipeline.as_str().to_owned(),
            run: input.scope.epoch.0,
            task: input.scope.attempt.clone(),
        },
        tally: None,
    };
    let plan = Arc::new(WriteExec::new(Arc::new(spec), plan));
    Ok(EpochPlan { plan, stateful: remembering.stateful })
}

/// Checks the whole definition by planning an epoch that reads nothing, and gives the table's schema.
pub async fn check_definition(base: &SessionState, definition: &StreamingDefinition) -> Result<SchemaRef> {
    let input = EpochInput::nothing();
    plan_epoch(base, definition, &input).await?;
    Ok(plan_query(base, definition, &input).await?.plan.schema())
}

/// The plan of an epoch that reads nothing, for EXPLAIN.
pub async fn explain_definition(
    base: &SessionState,
    definition: &StreamingDefinition,
) -> Result<Arc<dyn ExecutionPlan>> {
    Ok(plan_epoch(base, definition, &EpochInput::nothing()).await?.plan)
}

impl EpochInput {
    fn nothing() -> Self {
        let nowhere = SinkSpec { connector: String::new(), target: String::new(), options: BTreeMap::new() };
        let scope = EpochScope {
            pipeline: PipelineId::new("check"),
            epoch: Epoch::NONE,
            attempt: "check".to_owned(),
            late_before_ms: None,
            close_before_ms: None,
        };
        Self {
            scope,
            ranges: Vec::new(),
            state: Vec::new(),
            table: nowhere.clone(),
            dead_letters: nowhere,
            state_deltas: 1,
            single_writer: false,
        }
    }
}

/// Names of everything that a query reads, as it was written.
pub fn sources(query: &Query) -> Result<Vec<String>> {
    let mut query = query.clone();
    rewrite_windows(&mut query, RewriteFor::Stream)?;
    let with = query.with.iter().flat_map(|with| &with.cte_tables);
    let local: Vec<String> = with.map(|cte| normalize(cte.alias.name.clone())).collect();
    let mut names = BTreeSet::new();
    let _ = visit_relations(&query, |relation| {
        let last = relation.0.last().and_then(|part| part.as_ident()).cloned();
        names.extend(last.map(normalize).filter(|name| !local.contains(name)));
        ControlFlow::<()>::Continue(())
    });
    Ok(names.into_iter().collect())
}

struct PlannedQuery {
    plan: Arc<dyn ExecutionPlan>,
    event_time: Option<EventTime>,
    deduplicate_by: Option<Vec<String>>,
}

async fn plan_query(
    base: &SessionState,
    definition: &StreamingDefinition,
    input: &EpochInput,
) -> Result<PlannedQuery> {
    let state = session(base, definition.buckets);
    let mut query = definition.pipeline.parse_query()?;
    rewrite_everyday(&mut query)?;
    let window = window_of(&mut query)?;
    let source = &definition.source;
    let event_time = event_time(source, window.as_ref())?;
    // HOP copies a row into each of its windows by UNNEST.
    let unnests = matches!(window.as_ref().map(|window| window.kind), Some(WindowKind::Hop { .. }));
    let deduplicate_by = window.and_then(|window| window.dedup_key);
    let always = match (&deduplicate_by, &event_time) {
        (Some(key), Some(time)) => columns(source, key.iter().chain([&time.column]))?,
        _ => Vec::new(),
    };
    let table = IngestTable {
        spec: Arc::new(IngestSpec {
            source: source.spec.clone(),
            decoder: definition.decoder(),
            schema: source.schema.clone(),
            event_time: event_time.clone(),
            dead_letters: input.dead_letters.clone(),
            scope: input.scope.clone(),
        }),
        expectations: Arc::new(expectations(&state, definition)?),
        ranges: input.ranges.clone(),
        always,
    };
    let context = SessionContext::new_with_state(state);
    context.register_table(source.name.as_str(), Arc::new(table)).map_err(from_datafusion)?;
    let state = context.state();
    let statement = Statement::Statement(Box::new(SqlStatement::Query(query)));
    let logical = state.statement_to_plan(statement).await.map_err(from_datafusion)?;
    shape::check(&logical, unnests)?;
    let logical = state.optimize(&logical).map_err(from_datafusion)?;
    shape::check(&logical, unnests)?;
    let plan = state.query_planner().create_physical_plan(&logical, &state).await.map_err(from_datafusion)?;
    Ok(PlannedQuery { plan, event_time, deduplicate_by })
}

/// The base session, made fit for epochs: hash partitions are buckets, and no rule changes the shape that
/// [`remember`] looks for.
fn session(base: &SessionState, buckets: u32) -> SessionState {
    let mut config = base.config().clone();
    let options = config.options_mut();
    options.execution.target_partitions = (buckets as usize).max(2);
    options.optimizer.enable_round_robin_repartition = false;
    options.optimizer.repartition_aggregations = true;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    // `count(DISTINCT x)` stays, as its state is kept; the first of these rules makes two aggregations of it.
    let changes = ["single_distinct_aggregation_to_group_by", "grouped_sets"];
    let rules = base.optimizers().iter().filter(|rule| !changes.contains(&rule.name()));
    SessionStateBuilder::new_from_existing(base.clone())
        .with_config(config)
        .with_optimizer_rules(rules.cloned().collect())
        .with_catalog_list(Arc::new(datafusion::catalog::MemoryCatalogProviderList::new()))
        .build()
}

fn window_of(query: &mut Query) -> Result<Option<WindowInfo>> {
    let mut windows = rewrite_windows(query, RewriteFor::Stream)?;
    if windows.len() > 1 {
        return Err(Error::new(Code::Unsupported, "more than one window in a streaming table")
            .hint("create one streaming table for each window"));
    }
    Ok(windows.pop())
}

fn event_time(source: &SourceDef, window: Option<&WindowInfo>) -> Result<Option<EventTime>> {
    let size = match window.map(|window| window.kind) {
        Some(WindowKind::Tumble { size_ms }) => Some(WindowSize { size_ms, slide_ms: size_ms }),
        Some(WindowKind::Hop { size_ms, slide_ms }) => Some(WindowSize { size_ms, slide_ms }),
        Some(WindowKind::None) | None => None,
    };
    let Some(watermark) = &source.watermark else {
        if window.is_none() {
            return Ok(None);
        }
        let message = format!("source `{}` has no watermark, so its windows would never close", source.name);
        return Err(Error::new(Code::InvalidStatement, message)
            .hint("declare WATERMARK FOR ts AS ts - INTERVAL '5 seconds' in CREATE SOURCE"));
    };
    let column = watermark.column.clone();
    if let Some(time) = window.and_then(|window| window.time_column.as_ref()).filter(|time| **time != column)
    {
        let message =
            format!("the window is over `{time}`, the watermark of `{}` over `{column}`", source.name);
        return Err(Error::new(Code::InvalidStatement, message)
            .hint(format!("use `{column}` in the window, or declare the watermark for `{time}`")));
    }
    Ok(Some(EventTime { column, window: size }))
}

fn columns<'a>(source: &SourceDef, names: impl Iterator<Item = &'a String>) -> Result<Vec<usize>> {
    let known = || source.schema.fields().iter().map(|field| field.name().as_str());
    names
        .map(|name| {
            source.schema.index_of(name).map_err(|_| {
                let message = format!("no column `{name}` in source `{}`", source.name);
                Error::new(Code::UnknownColumn, message).suggest(name, known())
            })
        })
        .collect()
}

fn expectations(state: &SessionState, definition: &StreamingDefinition) -> Result<Vec<Expectation>> {
    let schema = DFSchema::try_from(definition.source.schema.as_ref().clone()).map_err(from_datafusion)?;
    definition
        .pipeline
        .expectations
        .iter()
        .map(|expectation| {
            let parsed = state
                .create_logical_expr(&expectation.condition, &schema)
                .and_then(|logical| state.create_physical_expr(logical, &schema));
            let condition = parsed.map_err(|error| {
                from_datafusion(error).context(format!("expectation `{}`", expectation.name))
            })?;
            let kind = condition.data_type(&definition.source.schema).map_err(from_datafusion)?;
            if kind != arrow::datatypes::DataType::Boolean {
                let message = format!("expectation `{}` is {kind}, not a condition", expectation.name);
                return Err(Error::new(Code::TypeMismatch, message).hint("e.g. EXPECT (price >= 0)"));
            }
            Ok(Expectation {
                name: expectation.name.clone(),
                condition,
                on_violation: match expectation.on_violation {
                    OnViolation::DeadLetter => exec::OnViolation::DeadLetter,
                    OnViolation::Drop => exec::OnViolation::Drop,
                    OnViolation::Fail => exec::OnViolation::Fail,
                },
            })
        })
        .collect()
}
