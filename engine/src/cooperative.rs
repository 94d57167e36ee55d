//! Joins of everything with everything, made to pause.
//!
//! They turn one batch into thousands without asking their inputs again, and what stands above them takes all of
//! these in one go: a thread would neither see that the job was cancelled nor answer anybody else.

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use std::sync::Arc;

/// The plan with its joins without keys giving way after some batches.
pub fn joins(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let polite = plan.transform_up(|node| {
        if !node.is::<CrossJoinExec>() && !node.is::<NestedLoopJoinExec>() {
            return Ok(Transformed::no(node));
        }
        let polite: Arc<dyn ExecutionPlan> = Arc::new(CooperativeExec::new(node));
        Ok(Transformed::yes(polite))
    })?;
    Ok(polite.data)
}
