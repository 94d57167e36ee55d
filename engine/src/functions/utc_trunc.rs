//! `date_trunc` of a point in UTC by arithmetic.
//!
//! DataFusion looks up the time zone for each row, which takes more time than all the rest of a count by hour. In
//! UTC an hour and a day are always as long, so a rule has `utc_trunc` do it instead.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult, ScalarValue, exec_err, plan_err};
use datafusion::functions::utils::make_scalar_function;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use std::sync::{Arc, LazyLock};

const SECONDS: [(&str, i64); 2] = [("hour", 3_600), ("day", 86_400)];

/// `utc_trunc(seconds, point)`, for sessions.
pub(crate) fn utc_trunc() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(UtcTrunc { signature }))
    });
    FUNCTION.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct UtcTrunc {
    signature: Signature,
}

impl ScalarUDFImpl for UtcTrunc {
    fn name(&self) -> &str {
        "utc_trunc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> DfResult<Vec<DataType>> {
        match arguments {
            [seconds, point @ DataType::Timestamp(..)] if seconds.is_integer() => {
                Ok(vec![DataType::Int64, point.clone()])
            }
            _ => plan_err!("utc_trunc takes seconds and a timestamp, not {arguments:?}"),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> DfResult<DataType> {
        match arguments {
            [_, point] => Ok(point.clone()),
            _ => plan_err!("utc_trunc takes seconds and a timestamp"),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> DfResult<SortProperties> {
        match inputs {
            [seconds, point] if seconds.sort_properties == SortProperties::Singleton => {
                Ok(point.sort_properties)
            }
            _ => Ok(SortProperties::Unordered),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let seconds = match args.args.first() {
            Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(seconds)))) if *seconds > 0 => *seconds,
            _ => return exec_err!("utc_trunc: the seconds are a constant greater than zero"),
        };
        make_scalar_function(move |points: &[ArrayRef]| truncated(&points[0], seconds), vec![])(
            &args.args[1..],
        )
    }
}

fn truncated(points: &ArrayRef, seconds: i64) -> DfResult<ArrayRef> {
    let DataType::Timestamp(unit, _) = points.data_type() else {
        return exec_err!("utc_trunc takes a timestamp, not {}", points.data_type());
    };
    Ok(match unit {
        TimeUnit::Second => multiples::<TimestampSecondType>(points, seconds),
        TimeUnit::Millisecond => multiples::<TimestampMillisecondType>(points, seconds.saturating_mul(1_000)),
        TimeUnit::Microsecond => {
            multiples::<TimestampMicrosecondType>(points, seconds.saturating_mul(1_000_000))
        }
        TimeUnit::Nanosecond => {
            multiples::<TimestampNanosecondType>(points, seconds.saturating_mul(1_000_000_000))
        }
    })
}

/// Each value less what it is above a multiple of `step`.
fn multiples<T: ArrowPrimitiveType<Native = i64>>(points: &ArrayRef, step: i64) -> ArrayRef {
    let points: &PrimitiveArray<T> = points.as_primitive();
    // The first hour that 64 bits can tell has no beginning.
    let cut = points.unary::<_, T>(|point| point.saturating_sub(point.rem_euclid(step)));
    Arc::new(cut.with_data_type(points.data_type().clone()))
}

/// Puts it in the place of `date_trunc`.
#[derive(Debug, Default)]
pub(crate) struct TruncateInUtc;

impl OptimizerRule for TruncateInUtc {
    fn name(&self) -> &str {
        "truncate_in_utc"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> DfResult<Transformed<LogicalPlan>> {
        let mut found = false;
        plan.apply_expressions(|expr| {
            found |= expr.exists(|part| Ok(is_date_trunc(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        // Most plans have none, and schemas take time to merge.
        if !found {
            return Ok(Transformed::no(plan));
        }
        let schema = match &plan {
            LogicalPlan::TableScan(scan) => DFSchema::clone(&scan.projected_schema),
            plan => merge_schema(&plan.inputs()),
        };
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| {
                Ok(match in_utc(&expr, &schema) {
                    Some(ours) => Transformed::yes(ours),
                    None => Transformed::no(expr),
                })
            })?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })
    }
}

fn is_date_trunc(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.name() == "date_trunc")
}

fn in_utc(expr: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::ScalarFunction(ScalarFunction { args, .. }) = expr else { return None };
    if !is_date_trunc(expr) {
        return None;
    }
    let [Expr::Literal(unit, _), point] = args.as_slice() else { return None };
    let unit = unit.try_as_str()??;
    let (_, seconds) = SECONDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let DataType::Timestamp(_, Some(zone)) = point.get_type(schema).ok()? else { return None };
    if !matches!(zone.as_ref(), "UTC" | "+00:00") {
        return None;
    }
    Some(utc_trunc().call(vec![lit(*seconds), point.clone()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::RecordBatch;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn it_answers_as_date_trunc_does() {
        let ours = crate::functions::with_functions(Default::default()).build();
        let (ours, plain) = (SessionContext::new_with_state(ours), SessionContext::new());
        let points = "(VALUES ('2026-03-31T23:59:59.999999Z'), ('1969-12-31T23:00:01Z'), ('1960-02-29T00:00:00Z'), \
                      (NULL)) AS t(text)";
        for unit in ["Second", "Millisecond", "Microsecond", "Nanosecond"] {
            let point = format!("arrow_cast(text, 'Timestamp({unit}, Some(\"UTC\"))')");
            for part in ["hour", "DAY", "month", "minute"] {
                let sql = format!(
                    "SELECT date_trunc('{part}', {point}), count(*) FROM {points} GROUP BY date_trunc('{part}', {point}) \
                     ORDER BY 1"
                );
                let (one, other) = (ours.sql(&sql).await.unwrap(), plain.sql(&sql).await.unwrap());
                assert_eq!(one.schema().as_arrow(), other.schema().as_arrow(), "{sql}");
                let shown = |batches: &[RecordBatch]| pretty_format_batches(batches).unwrap().to_string();
                let answer = shown(&one.clone().collect().await.unwrap());
                assert_eq!(answer, shown(&other.collect().await.unwrap()), "{sql}");
                let plan = one.into_optimized_plan().unwrap().to_string();
                assert_eq!(plan.contains("utc_trunc"), matches!(part, "hour" | "DAY"), "{plan}");
            }
        }
        let far = "SELECT date_trunc('day', arrow_cast('9999-12-31T12:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')) \
                   = arrow_cast('9999-12-31T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))') AS same";
        let batches = ours.sql(far).await.unwrap().collect().await.unwrap();
        assert!(batches[0].column(0).as_boolean().value(0));
    }
}
