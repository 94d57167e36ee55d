//! What is known of a plan's rows before it runs. All of it is a guess where a filter stands below.

use datafusion::common::Statistics;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use std::sync::Arc;

/// Rows that come out of the plan; `None` where nothing says how many.
pub fn rows(plan: &Arc<dyn ExecutionPlan>) -> Option<usize> {
    statistics(plan)?.num_rows.get_value().copied()
}

/// Bytes of these rows in memory; `None` where nothing says how many.
pub fn bytes(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    statistics(plan)?.total_byte_size.get_value().map(|bytes| *bytes as u64)
}

fn statistics(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<Statistics>> {
    StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).ok()
}
