//! The leaf of every plan that reads through a connector: rows that *describe* what is to be read.
//!
//! One partition and one batch of one row per descriptor, over DataFusion's own in-memory source, because
//! every engine can cut that one into tasks. The operator above it does the reading.

use crate::exec::{descriptor_batch, descriptor_schema};
use crate::from_datafusion;
use arrow::array::RecordBatch;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use serde::Serialize;
use std::sync::Arc;
use tidemill_core::Result;

/// A leaf with one partition for each of `items`, in their order. It has at least one partition, which is
/// empty when there are no items.
pub fn descriptors<T: Serialize>(items: &[T]) -> Result<Arc<dyn ExecutionPlan>> {
    let mut partitions: Vec<Vec<RecordBatch>> =
        items.iter().map(|item| Ok(vec![descriptor_batch(item)?])).collect::<Result<_>>()?;
    if partitions.is_empty() {
        partitions.push(Vec::new());
    }
    leaf(&partitions)
}

/// The partitions of `plan`, if it is a descriptor leaf. It is known by its schema: to cut an in-memory table
/// that happens to look like one does no harm.
pub(crate) fn partitions(plan: &dyn ExecutionPlan) -> Option<&[Vec<RecordBatch>]> {
    let source = plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<MemorySourceConfig>()?;
    let whole =
        source.projection().is_none() && source.original_schema().fields() == descriptor_schema().fields();
    whole.then(|| source.partitions())
}

/// A leaf of these partitions, which came from [`partitions`].
pub(crate) fn leaf(partitions: &[Vec<RecordBatch>]) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = MemorySourceConfig::try_new_exec(partitions, descriptor_schema(), None);
    Ok(plan.map_err(from_datafusion)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::descriptor;
    use datafusion::execution::TaskContext;
    use datafusion::physical_plan::ExecutionPlanProperties;

    #[tokio::test]
    async fn each_partition_gives_its_own_descriptor() {
        let plan = descriptors(&["a", "b"]).unwrap();
        assert_eq!(plan.output_partitioning().partition_count(), 2);
        assert_eq!(partitions(plan.as_ref()).unwrap().len(), 2);
        let context = Arc::new(TaskContext::default());
        let second = plan.execute(1, context.clone()).unwrap();
        assert_eq!(descriptor::<String>(second).await.unwrap().as_deref(), Some("b"));
        let none = descriptors::<String>(&[]).unwrap();
        assert_eq!(descriptor::<String>(none.execute(0, context).unwrap()).await.unwrap(), None);
    }
}
