//! Joins as Ballista will run them, known before partitions and orders are settled.
//!
//! Ballista sends the build side of a `CollectLeft` join to all tasks only for some join types and for a known,
//! small size. Any other it shuffles anew, after planning: what stands above such a join and relies on its one
//! partition, on its hash partitioning or on its order would then be wrong without a word. So the choice is made
//! here first, where DataFusion still puts in what the operators above need.

use ballista_core::config::BallistaConfig;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result as DfResult};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use std::sync::Arc;

/// DataFusion's rule after which ours comes.
const AFTER: &str = "join_selection";
/// Estimates change a little while a plan is made. What we take to be small must be small for Ballista in the end.
const MARGIN: usize = 2;

/// The builder with our rule. It does nothing in plans for other engines.
pub fn with_planner_rules(builder: SessionStateBuilder) -> SessionStateBuilder {
    let mut rules = PhysicalOptimizer::new().rules;
    let place = rules.iter().position(|rule| rule.name() == AFTER).map_or(rules.len(), |place| place + 1);
    rules.insert(place, Arc::new(ShuffleUnsafeBroadcasts));
    builder.with_physical_optimizer_rules(rules)
}

/// Makes partitioned joins of those that Ballista would not broadcast.
#[derive(Debug)]
struct ShuffleUnsafeBroadcasts;

impl PhysicalOptimizerRule for ShuffleUnsafeBroadcasts {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(limit) = limit(config) else { return Ok(plan) };
        let changed = plan.transform_up(|node| {
            let Some(join) = shuffled_by_ballista(&node, limit / MARGIN) else {
                return Ok(Transformed::no(node));
            };
            let join = join.builder().with_partition_mode(PartitionMode::Partitioned).build_exec()?;
            Ok(Transformed::yes(join))
        })?;
        Ok(changed.data)
    }

    fn name(&self) -> &str {
        "shuffle_unsafe_broadcasts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether Ballista will change how a join is partitioned, although the plan was made otherwise.
pub(super) fn changes_later(plan: &Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> bool {
    let limit = limit(config).unwrap_or_default();
    plan.exists(|node| Ok(shuffled_by_ballista(node, limit).is_some())).unwrap_or(true)
}

fn limit(config: &ConfigOptions) -> Option<usize> {
    config.extensions.get::<BallistaConfig>().map(BallistaConfig::broadcast_join_threshold_bytes)
}

/// The join, if it collects its build side and Ballista would not broadcast that with this limit.
fn shuffled_by_ballista(node: &Arc<dyn ExecutionPlan>, limit: usize) -> Option<&HashJoinExec> {
    let join = node.downcast_ref::<HashJoinExec>()?;
    let collects = *join.partition_mode() == PartitionMode::CollectLeft;
    // Ballista has a way of its own for those that are null-aware: one task.
    let shuffled =
        collects && !join.null_aware && !(driven_by_probe(*join.join_type()) && is_below(join.left(), limit));
    shuffled.then_some(join)
}

/// Join types of which no row depends on what other tasks have seen.
fn driven_by_probe(join: JoinType) -> bool {
    match join {
        JoinType::Inner
        | JoinType::Right
        | JoinType::RightSemi
        | JoinType::RightAnti
        | JoinType::RightMark => true,
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
            false
        }
    }
}

/// As Ballista estimates it: bytes, or else rows times the width of their types. What is not known is not small.
fn is_below(plan: &Arc<dyn ExecutionPlan>, limit: usize) -> bool {
    let Ok(known) = StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()) else {
        return false;
    };
    let some = |value: Option<&usize>| value.copied().filter(|value| *value != 0);
    let width = || plan.schema().fields().iter().map(|field| width(field.data_type())).sum::<usize>().max(8);
    let bytes = some(known.total_byte_size.get_value())
        .or_else(|| some(known.num_rows.get_value()).map(|rows| rows.saturating_mul(width())));
    bytes.is_some_and(|bytes| bytes < limit)
}

fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) => 32,
        _ => data_type.primitive_width().unwrap_or(32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staged::plan_settings;
    use datafusion::physical_plan::displayable;
    use datafusion::prelude::{SessionConfig, SessionContext};

    async fn planned(sql: &str) -> Arc<dyn ExecutionPlan> {
        let mut config = plan_settings(SessionConfig::new().with_target_partitions(2));
        // As for an input that memory can hold.
        config.options_mut().optimizer.prefer_hash_join = true;
        let state = SessionStateBuilder::new().with_default_features().with_config(config);
        let context = SessionContext::new_with_state(with_planner_rules(state).build());
        for table in ["small", "other"] {
            let values = format!("CREATE TABLE {table} AS VALUES (1, 'a'), (2, 'b')");
            context.sql(&values).await.unwrap().collect().await.unwrap();
        }
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        assert!(
            !changes_later(&plan, context.state().config().options()),
            "{}",
            displayable(plan.as_ref()).indent(false)
        );
        plan
    }

    fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
        displayable(plan.as_ref()).indent(false).to_string()
    }

    #[tokio::test]
    async fn small_inner_joins_stay_broadcasts() {
        let plan = planned("SELECT * FROM small JOIN other ON small.column1 = other.column1").await;
        assert!(shown(&plan).contains("mode=CollectLeft"), "{}", shown(&plan));
    }

    #[tokio::test]
    async fn joins_that_need_to_see_all_are_partitioned() {
        let plan =
            planned("SELECT count(*) FROM small LEFT JOIN other ON small.column1 = other.column1").await;
        assert!(shown(&plan).contains("mode=Partitioned, join_type=Left"), "{}", shown(&plan));
    }
}
