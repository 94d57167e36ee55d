use datafusion::prelude::SessionContext;

/// The optimised plan of a session whose subqueries become joins.
async fn optimized(sql: &str) -> String {
    let state = crate::functions::with_functions(Default::default()).build();
    let context = SessionContext::new_with_state(state);
    for set in [
        "SET datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery = false",
        "CREATE TABLE t (a INT, b INT) AS VALUES (1, 2), (3, 4)",
    ] {
        context.sql(set).await.unwrap().collect().await.unwrap();
    }
    context.sql(sql).await.unwrap().into_optimized_plan().unwrap().to_string()
}

#[tokio::test]
async fn what_has_one_row_by_its_form_is_not_checked() {
    for one in [
        "SELECT max(a) FROM t",
        "SELECT 2 * s FROM (SELECT sum(a) AS s FROM t) WHERE s > 0",
        "SELECT x.m + y.m FROM (SELECT max(a) AS m FROM t) x, (SELECT min(a) AS m FROM t) y",
        "SELECT a FROM t ORDER BY a LIMIT 1",
        "SELECT 42",
    ] {
        let plan = optimized(&format!("SELECT a FROM t WHERE b > ({one})")).await;
        assert!(!plan.contains("single_value"), "{one}\n{plan}");
    }
    for several in [
        "SELECT a FROM t",
        "SELECT DISTINCT a FROM t WHERE b = 2",
        "SELECT max(a) FROM t GROUP BY b",
        "SELECT count(*) FROM (VALUES (1)) v(x) GROUP BY ROLLUP (x)",
        "SELECT a FROM t ORDER BY a LIMIT 2",
        "SELECT max(a) FROM t UNION ALL SELECT 1",
    ] {
        let plan = optimized(&format!("SELECT a FROM t WHERE b > ({several})")).await;
        assert!(plan.contains("single_value"), "{several}\n{plan}");
    }
}

/// Else the join would compare every row with every other one.
#[tokio::test]
async fn a_join_on_equal_values_stays_one() {
    let plan =
        optimized("SELECT x.a FROM t x JOIN t y ON x.a = y.a + (SELECT max(b) FROM t) AND x.b > 1").await;
    assert!(plan.contains("Inner Join: x.a = y.a + __scalar_value"), "{plan}");
}
