//! Types and values, compared with what Spark's rule gives.

use super::arithmetic::rounded;
use crate::functions::with_functions;
use arrow::datatypes::i256;
use arrow::util::display::array_value_to_string;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::SessionContext;

fn session() -> SessionContext {
    SessionContext::new_with_state(with_functions(SessionStateBuilder::new()).build())
}

/// The first column.
async fn answer(sql: &str) -> Result<Vec<String>, String> {
    let frame = session().sql(sql).await.map_err(|error| format!("{sql}: {error}"))?;
    let batches = frame.collect().await.map_err(|error| format!("{sql}: {error}"))?;
    let mut values = Vec::new();
    for batch in &batches {
        values.extend((0..batch.num_rows()).map(|row| array_value_to_string(batch.column(0), row).unwrap()));
    }
    Ok(values)
}

async fn value(expr: &str) -> String {
    answer(&format!("SELECT {expr}")).await.unwrap().remove(0)
}

async fn data_type(expr: &str) -> String {
    value(&format!("arrow_typeof({expr})")).await
}

#[tokio::test]
async fn a_quotient_has_the_digits_that_spark_gives_it() {
    let decimal = |digits: &str| format!("CAST(1 AS DECIMAL({digits}))");
    for (left, right, result) in [
        ("7, 2", "7, 2", "17, 10"),
        ("17, 2", "23, 6", "38, 17"),
        ("38, 10", "38, 10", "38, 6"),
        ("38, 0", "38, 37", "38, 6"),
        ("38, 37", "38, 0", "38, 37"),
    ] {
        let expr = format!("{} / {}", decimal(left), decimal(right));
        assert_eq!(data_type(&expr).await, format!("Decimal128({result})"), "{expr}");
    }
    for (expr, result) in [
        ("CAST(1 AS DECIMAL(17, 2)) / CAST(1 AS BIGINT)", "Decimal128(38, 23)"),
        ("CAST(1 AS INT) / CAST(1 AS DECIMAL(5, 1))", "Decimal128(17, 6)"),
        ("CAST(1 AS SMALLINT) / CAST(1 AS DECIMAL(5, 1))", "Decimal128(12, 6)"),
        ("CAST(1 AS TINYINT) / CAST(1 AS DECIMAL(5, 1))", "Decimal128(10, 6)"),
        ("100 / CAST(1 AS DECIMAL(5, 1))", "Decimal128(10, 6)"),
        ("CAST(1 AS DECIMAL(19, 2)) / -3", "Decimal128(23, 6)"),
        ("CAST(1 AS DECIMAL(5, 1)) / 2.5", "Float64"),
        ("7 / 2", "Int64"),
    ] {
        assert_eq!(data_type(expr).await, result, "{expr}");
    }
}

#[tokio::test]
async fn quotients_are_rounded() {
    for (expr, quotient) in [
        ("CAST(2 AS DECIMAL(7, 2)) / 3", "0.666667"),
        ("CAST(-2 AS DECIMAL(7, 2)) / 3", "-0.666667"),
        ("2 / CAST(3 AS DECIMAL(1, 0))", "0.666667"),
        // Eleven digits of the dividend go, for want of room.
        ("CAST('0.00000050000000000' AS DECIMAL(38, 17)) / CAST(1 AS DECIMAL(38, 17))", "0.000001"),
        ("CAST('-0.00000049999999999' AS DECIMAL(38, 17)) / CAST(1 AS DECIMAL(38, 17))", "0.000000"),
        // More than 128 bits on the way.
        (
            "CAST('1234567890123456789012345678.9' AS DECIMAL(38, 10)) / CAST(3 AS DECIMAL(38, 10))",
            "411522630041152263004115226.300000",
        ),
    ] {
        assert_eq!(value(expr).await, quotient, "{expr}");
    }
}

#[test]
fn halves_go_away_from_zero() {
    for (dividend, divisor, quotient) in [
        (5, 2, 3),
        (-5, 2, -3),
        (5, -2, -3),
        (-5, -2, 3),
        (7, 3, 2),
        (8, 3, 3),
        (0, -7, 0),
        (i128::MAX, 1, i128::MAX),
        (i128::MAX - 1, i128::MAX, 1),
    ] {
        assert_eq!(rounded(dividend, divisor), quotient, "{dividend} / {divisor}");
        let wide = rounded(i256::from_i128(dividend), i256::from_i128(divisor));
        assert_eq!(wide, i256::from_i128(quotient), "{dividend} / {divisor}");
    }
}

#[tokio::test]
async fn columns_constants_and_nulls() {
    let numbers = "(SELECT x, CAST(x AS DECIMAL(5, 2)) AS a, CAST(y AS DECIMAL(5, 2)) AS b \
                   FROM (VALUES (1, 8), (3, NULL), (NULL, 0)) AS v(x, y)) ORDER BY x";
    let column = async |expr: &str| answer(&format!("SELECT {expr} FROM {numbers}")).await.unwrap();
    assert_eq!(column("a / b").await, ["0.12500000", "", ""]);
    assert_eq!(column("a / 8").await, ["0.125000", "0.375000", ""]);
    assert_eq!(column("x / CAST(8 AS DECIMAL(3, 1))").await, ["0.125000", "0.375000", ""]);
    assert_eq!(column("CASE WHEN b <> 0 THEN 1 / b END").await, ["0.125000", "", ""]);
}

#[tokio::test]
async fn what_is_no_number_is_an_error() {
    let failure = async |expr: &str| answer(&format!("SELECT {expr}")).await.unwrap_err();
    let by_zero = failure("CAST(1 AS DECIMAL(7, 2)) / 0").await;
    assert!(by_zero.contains("Divide by zero"), "{by_zero}");
    let large =
        "CAST('1000000000000000000000000000' AS DECIMAL(38, 10)) / CAST('0.0000000001' AS DECIMAL(38, 10))";
    let large = failure(large).await;
    assert!(large.contains(" / 0.0000000001 does not fit DECIMAL(38, 6)"), "{large}");
}

/// Its first branch is an integer, which is all that the planner sees.
#[tokio::test]
async fn a_case_may_settle_for_a_double() {
    let expr = "CASE WHEN true THEN 1 ELSE 0.5 END / CAST(2 AS DECIMAL(5, 1))";
    assert_eq!(value(expr).await, "0.5");
}

#[tokio::test]
async fn products_are_ours_only_where_scales_add_up_too_far() {
    let quotient = "(CAST(3 AS DECIMAL(17, 2)) / CAST(2 AS DECIMAL(17, 2)))";
    assert_eq!(data_type(quotient).await, "Decimal128(37, 20)");
    let square = format!("{quotient} * {quotient}");
    assert_eq!(data_type(&square).await, "Decimal128(38, 6)");
    assert_eq!(value(&square).await, "2.250000");
    assert_eq!(value(&format!("-3 * {quotient}")).await, "-4.5000000000000000000");
    let plain = "CAST(3 AS DECIMAL(15, 2)) * (1 - CAST(0.05 AS DECIMAL(15, 2)))";
    let datafusion = SessionContext::new().sql(&format!("SELECT {plain}")).await.unwrap();
    let expected = datafusion.schema().field(0).data_type().to_string();
    assert_eq!(data_type(plain).await, expected);
}

#[tokio::test]
async fn columns_have_the_names_that_datafusion_gives_them() {
    let sql = "SELECT d / 3, d / d, 1 + d / i, sum(d) / count(*) FROM \
               (SELECT CAST(1 AS DECIMAL(5, 2)) AS d, CAST(2 AS INT) AS i) GROUP BY d, i";
    let names = async |context: SessionContext| -> Vec<String> {
        let frame = context.sql(sql).await.unwrap();
        frame.schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    assert_eq!(names(session()).await, names(SessionContext::new()).await);
}
