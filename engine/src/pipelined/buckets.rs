//! Keyed state: bucket k is processed by one task, and by the same one on both sides.
//!
//! A keyed operator reads its rows from a hash repartition into K buckets and its state from K descriptors.
//! With T tasks the network shuffle hashes modulo (partitions of one task × T), and partition p of task t is
//! bucket t·P + p. So with P = K / T, K stays the modulus, and task t needs the descriptors [t·P, (t+1)·P):
//!
//! ```text
//!   KeyedAggregateExec                          KeyedAggregateExec
//!     RepartitionExec Hash(keys, K)      ─▶       RepartitionExec Hash(keys, K/T)     (shuffled: × T)
//!     descriptors, K partitions                   T leaves of K/T descriptors
//! ```

use super::leaves::cut_leaf;
use crate::exec::descriptors;
use crate::to_datafusion;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion_distributed::{DistributedLeafExec, NetworkBoundaryExt};
use std::sync::Arc;
use tidemill_core::{Error, Result};

/// Cuts every keyed operator of `plan` for at most `tasks` tasks.
pub(super) fn align(plan: Arc<dyn ExecutionPlan>, tasks: usize) -> DfResult<Arc<dyn ExecutionPlan>> {
    let aligned = plan.transform_up(|node| {
        let &[rows, states] = node.children().as_slice() else { return Ok(Transformed::no(node)) };
        let Some(partitions) = descriptors::partitions(states.as_ref()) else {
            return Ok(Transformed::no(node));
        };
        let buckets = partitions.len();
        let hashed =
            rows.downcast_ref::<RepartitionExec>().and_then(|repartition| match repartition.partitioning() {
                Partitioning::Hash(keys, modulus) if *modulus == buckets => Some((repartition.input(), keys)),
                _ => None,
            });
        let Some((input, keys)) = hashed else {
            let message = format!("{} does not hash its rows into its {buckets} buckets", node.name());
            return Err(to_datafusion(Error::internal(message)));
        };
        let each = buckets / largest_divisor(buckets, tasks);
        let states = cut_leaf(states, partitions.chunks(each).map(<[_]>::to_vec))?;
        let rows = RepartitionExec::try_new(input.clone(), Partitioning::Hash(keys.clone(), each))?;
        Ok(Transformed::yes(super::with_children(node, vec![Arc::new(rows), states])?))
    })?;
    Ok(aligned.data)
}

/// The largest divisor of `buckets` that is at most `tasks`.
fn largest_divisor(buckets: usize, tasks: usize) -> usize {
    (1..=tasks.min(buckets)).rev().find(|count| buckets.is_multiple_of(*count)).unwrap_or(1)
}

/// Checks that every leaf of states that was cut for T tasks is in a stage of T tasks. If it is not, rows would meet the
/// state of another bucket. Other leaves may be cut as one likes: the parts of a union share its tasks.
pub(super) fn check(plan: &Arc<dyn ExecutionPlan>, tasks: usize) -> Result<()> {
    if let &[_, states] = plan.children().as_slice()
        && let Some(leaf) = states.downcast_ref::<DistributedLeafExec>()
    {
        let cut = leaf.variants().len();
        if cut != tasks && descriptors::partitions(leaf.original().as_ref()).is_some() {
            return Err(Error::internal(format!("a leaf was cut for {cut} tasks, its stage has {tasks}")));
        }
    }
    let below = plan.as_network_boundary().map_or(tasks, |boundary| boundary.input_stage().task_count());
    plan.children().into_iter().try_for_each(|child| check(child, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_divide_buckets() {
        assert_eq!(largest_divisor(4, 2), 2);
        assert_eq!(largest_divisor(4, 3), 2);
        assert_eq!(largest_divisor(6, 4), 3);
        assert_eq!(largest_divisor(1, 8), 1);
        assert_eq!(largest_divisor(7, 2), 1);
    }
}
