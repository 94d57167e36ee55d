//! What of a plan or of its rows does not arrive in another process as it was sent. Nobody on the way says so, and
//! the answer would be wrong.

use crate::scan::{files_of, reads_arrays};
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::CsvSource;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::scalar::ScalarValue;
use std::sync::Arc;

/// Why a node has to run where it was planned; `None` where it may travel.
pub fn stays(node: &Arc<dyn ExecutionPlan>) -> Option<&'static str> {
    if node.is::<RecursiveQueryExec>() {
        return Some("a recursive query runs in this process");
    }
    if node.is::<StreamingTableExec>() {
        return Some("what is read comes from this process: information_schema, or rows that a client sends");
    }
    if node.schema().fields().iter().any(|field| has_large_list(field.data_type())) {
        return Some("a large list cannot travel between processes");
    }
    if has_small_float(node.as_ref()) {
        return Some("a constant of 16 bits cannot travel between processes");
    }
    let scan = files_of(node)?;
    let source = scan.file_source();
    // `datafusion-proto` writes none of these.
    if scan.file_compression_type.is_compressed() {
        Some("only this process knows that the files are compressed")
    } else if source.downcast_ref::<CsvSource>().is_some_and(|csv| csv.terminator().is_some()) {
        Some("only this process knows where a line of the files ends")
    } else if !source.table_schema().virtual_columns().is_empty() {
        Some("rows of a file are numbered in this process")
    } else if reads_arrays(scan) {
        Some("only this process knows that each file is a JSON array")
    } else {
        None
    }
}

/// `arrow-flight` announces it as a plain list, and its offsets are read as what they are not.
fn has_large_list(data_type: &DataType) -> bool {
    match data_type {
        DataType::LargeList(_) | DataType::LargeListView(_) => true,
        DataType::List(item)
        | DataType::ListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_large_list(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_large_list(field.data_type())),
        _ => false,
    }
}

/// `datafusion-proto` writes it as one of 32 bits, and what is computed with it gets another type.
fn has_small_float(node: &dyn ExecutionPlan) -> bool {
    let mut found = false;
    let walked = node.apply_expressions(&mut |expr: &Arc<dyn PhysicalExpr>| {
        found |= expr.exists(|part| {
            let literal = part.downcast_ref::<Literal>();
            Ok(literal.is_some_and(|literal| matches!(literal.value(), ScalarValue::Float16(_))))
        })?;
        Ok(TreeNodeRecursion::Continue)
    });
    found || walked.is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Rows, prepare};
    use datafusion::physical_plan::{ExecutionPlanProperties, collect};
    use datafusion::prelude::{JsonReadOptions, SessionConfig, SessionContext};

    async fn reason(sql: &str) -> Option<&'static str> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let plan = context.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        of(plan)
    }

    fn of(plan: Arc<dyn ExecutionPlan>) -> Option<&'static str> {
        let mut reason = None;
        plan.apply(|node| {
            reason = reason.or(stays(node));
            Ok(TreeNodeRecursion::Continue)
        })
        .unwrap();
        reason
    }

    #[tokio::test]
    async fn json_arrays_stay_and_are_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (array, lines) = (folder.path().join("a.json"), folder.path().join("l.json"));
        let rows: Vec<String> = (0..1000).map(|n| format!("{{\"n\": {n}}}")).collect();
        std::fs::write(&array, format!("[{}]", rows.join(",\n"))).unwrap();
        std::fs::write(&lines, rows.join("\n")).unwrap();
        let mut config = SessionConfig::new().with_target_partitions(3);
        config.options_mut().optimizer.repartition_file_min_size = 0;
        let context = SessionContext::new_with_config(config);
        for (name, path, by_lines) in [("a", &array, false), ("l", &lines, true)] {
            let options = JsonReadOptions::default().newline_delimited(by_lines);
            context.register_json(name, path.display().to_string(), options).await.unwrap();
            let plan = context.sql(&format!("SELECT n FROM {name} WHERE n % 2 = 0")).await.unwrap();
            let plan = plan.create_physical_plan().await.unwrap();
            assert!(plan.output_partitioning().partition_count() > 1, "it is cut");
            assert_eq!(of(plan.clone()).is_some(), !by_lines);
            let plan = prepare(plan, &context.task_ctx(), Rows::Stay).unwrap();
            let rows = collect(plan, context.task_ctx()).await.unwrap();
            assert_eq!(rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), 500, "{name}");
        }
    }

    #[tokio::test]
    async fn what_would_change_on_the_way_stays() {
        assert_eq!(reason("SELECT [1], 1.5, 'x' FROM (VALUES (1)) t(a) WHERE a > 0").await, None);
        for sql in [
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) SELECT n FROM t",
            "SELECT table_name FROM information_schema.tables UNION ALL SELECT 'x'",
            "SELECT arrow_cast([a], 'LargeList(Int64)') FROM (VALUES (1)) t(a)",
            "SELECT [arrow_cast([a], 'LargeList(Int64)')] FROM (VALUES (1)) t(a)",
            "SELECT arrow_cast(a, 'Float16') + arrow_cast(1, 'Float16') FROM (VALUES (1)) t(a)",
        ] {
            assert!(reason(sql).await.is_some(), "{sql}");
        }
    }
}
