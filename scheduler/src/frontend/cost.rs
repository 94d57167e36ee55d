//! What a plan will cost, roughly: whether it waits among the heavy ones.

use crate::admission::Lane;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, InListExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;
use tidemill_engine::expected;
use tidemill_engine::scan::file_bytes;

/// Where a column must equal a constant, row groups and pages are left out by their statistics: so many times less
/// is read, to be careful.
const POINT_SHARE: u64 = 16;
/// Nodes whose work has little to do with what they read.
const HEAVY_NODES: [&str; 3] = ["CrossJoinExec", "NestedLoopJoinExec", "RecursiveQueryExec"];
/// Bytes of a generated value.
const VALUE_BYTES: usize = 8;

/// What is expected of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) lane: Lane,
    /// Bytes that its leaves read; `None` when it is not known.
    pub(super) bytes: Option<u64>,
}

/// A plan is heavy when it reads much, or nobody knows how much, or multiplies what it reads.
pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, heavy_from: u64) -> Cost {
    let (mut bytes, mut heavy) = (Some(0u64), false);
    let walked = plan.apply(|node| {
        heavy |= HEAVY_NODES.contains(&node.name());
        if node.children().is_empty() {
            bytes = bytes.zip(leaf_bytes(node)).map(|(all, read)| all.saturating_add(read));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(walked.is_ok(), "the walk itself cannot fail");
    heavy |= bytes.is_none_or(|bytes| bytes >= heavy_from);
    Cost { lane: if heavy { Lane::Heavy } else { Lane::Light }, bytes }
}

/// `None` when it is not known.
fn leaf_bytes(leaf: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    if let Some(source) = leaf.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source) {
        if source.is::<MemorySourceConfig>() {
            return Some(0);
        }
        if let Some(scan) = source.downcast_ref::<FileScanConfig>() {
            let whole = file_bytes(scan);
            // Statistics know of the projection, files of the compression: the smaller one is nearer.
            let known = estimate(leaf).map_or(whole, |known| known.min(whole));
            let point = scan.file_source().filter().is_some_and(|filter| is_point(&filter));
            return Some(if point { known / POINT_SHARE } else { known });
        }
        return estimate(leaf);
    }
    match leaf.name() {
        // A generated series tells nobody how long it is.
        "LazyMemoryExec" => None,
        // Nothing is read: one row, no row, a table of the catalog.
        _ => Some(0),
    }
}

fn estimate(leaf: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let by_rows =
        || expected::rows(leaf).map(|rows| (rows * VALUE_BYTES * leaf.schema().fields().len()) as u64);
    expected::bytes(leaf).or_else(by_rows)
}

/// Whether a column, or several, must equal constants.
fn is_point(filter: &Arc<dyn PhysicalExpr>) -> bool {
    split_conjunction(filter).into_iter().any(names_constants)
}

fn names_constants(part: &Arc<dyn PhysicalExpr>) -> bool {
    if let Some(list) = part.downcast_ref::<InListExpr>() {
        return !list.negated() && list.len() <= 100;
    }
    part.downcast_ref::<BinaryExpr>().is_some_and(|both| match both.op() {
        Operator::Eq => both.left().is::<Literal>() || both.right().is::<Literal>(),
        // A short list is written out.
        Operator::Or => is_point(both.left()) && is_point(both.right()),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::dataframe::DataFrameWriteOptions;
    use datafusion::prelude::{ParquetReadOptions, SessionContext};

    #[tokio::test]
    async fn what_reads_much_or_multiplies_is_heavy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet").display().to_string();
        let context = SessionContext::new();
        let rows = context.sql("SELECT value AS n, value * 2 AS m FROM generate_series(1, 1000000)");
        rows.await.unwrap().write_parquet(&path, DataFrameWriteOptions::new(), None).await.unwrap();
        context.register_parquet("t", &path, ParquetReadOptions::default()).await.unwrap();
        for (sql, expected) in [
            ("SELECT 1", Lane::Light),
            ("SELECT sum(m) FROM t WHERE n > 7", Lane::Heavy),
            ("SELECT m FROM t WHERE n = 7", Lane::Light),
            ("SELECT m FROM t WHERE n IN (7, 8)", Lane::Light),
            ("SELECT * FROM generate_series(1, 1000)", Lane::Heavy),
            ("SELECT count(*) FROM (VALUES (1)) a(x), (VALUES (2)) b(y) WHERE x + y > 0", Lane::Heavy),
        ] {
            let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
            let found = of(&plan, 1 << 20).lane;
            assert_eq!(found, expected, "{sql}");
        }
    }
}
