//! The functions that every node has: DataFusion's, ours, and those of Spark's that DataFusion has no function of
//! the same name for.
//!
//! Functions travel by name, and a query means the same in every session, so a function of Spark's never takes
//! the place of one of DataFusion's.

mod count_distinct;
mod decimals;
mod not_in;
mod single_value;
mod utc_trunc;

use crate::build_sides::is_key;
use crate::zorder::zorder;
use count_distinct::GroupedSets;
pub(crate) use count_distinct::{IdSets, count_distinct};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::optimizer::{Optimizer, OptimizerRule};
use decimals::ExactNumbers;
use not_in::NotInWithNulls;
use single_value::{SingleValues, single_value};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use utc_trunc::{TruncateInUtc, utc_trunc};

/// Spark's functions by kind, without those whose names are taken.
struct Spark {
    scalar: Vec<Arc<ScalarUDF>>,
    aggregate: Vec<Arc<AggregateUDF>>,
    window: Vec<Arc<WindowUDF>>,
}

static SPARK: LazyLock<Spark> = LazyLock::new(|| {
    let plain = SessionStateBuilder::new().with_default_features().build();
    let mut taken: BTreeSet<String> = names(&plain).into_iter().collect();
    // In Substrait these are operators, and would be taken for functions of that name.
    taken.extend(["like", "ilike"].map(str::to_owned));
    Spark {
        scalar: free(
            datafusion_spark::all_default_scalar_functions(),
            &taken,
            ScalarUDF::name,
            ScalarUDF::aliases,
        ),
        aggregate: free(
            datafusion_spark::all_default_aggregate_functions(),
            &taken,
            AggregateUDF::name,
            AggregateUDF::aliases,
        ),
        window: free(
            datafusion_spark::all_default_window_functions(),
            &taken,
            WindowUDF::name,
            WindowUDF::aliases,
        ),
    }
});

/// The functions whose names and aliases are all free: an alias would replace a built-in as well.
fn free<F>(
    functions: Vec<Arc<F>>,
    taken: &BTreeSet<String>,
    name: fn(&F) -> &str,
    aliases: fn(&F) -> &[String],
) -> Vec<Arc<F>> {
    let is_free = |function: &Arc<F>| {
        !taken.contains(name(function)) && aliases(function).iter().all(|alias| !taken.contains(alias))
    };
    functions.into_iter().filter(is_free).collect()
}

/// Adds all functions to a session, the planner of operators that are functions of ours, and the rules that put
/// ours in the place of others. DataFusion's planners come behind ours, its rules too: one of them would take
/// `count(DISTINCT …)` apart, and one would make joins of scalar subqueries.
pub(crate) fn with_functions(builder: SessionStateBuilder) -> SessionStateBuilder {
    let ours = decimals::functions().into_iter().chain([zorder(), utc_trunc(), is_key()]);
    let aggregates = [count_distinct(), single_value()];
    let rules: [Arc<dyn OptimizerRule + Send + Sync>; 4] =
        [Arc::new(NotInWithNulls), Arc::new(SingleValues), Arc::new(GroupedSets), Arc::new(TruncateInUtc)];
    builder
        .with_expr_planners(vec![Arc::new(ExactNumbers::default())])
        .with_optimizer_rules(rules.into_iter().chain(Optimizer::new().rules).collect())
        .with_scalar_functions(SPARK.scalar.iter().cloned().chain(ours).collect())
        .with_aggregate_functions(SPARK.aggregate.iter().cloned().chain(aggregates).collect())
        .with_window_functions(SPARK.window.clone())
        .with_default_features()
}

/// The names of Spark's functions that DataFusion does not have, sorted.
pub fn spark_functions() -> Vec<&'static str> {
    let scalar = SPARK.scalar.iter().map(|function| function.name());
    let aggregate = SPARK.aggregate.iter().map(|function| function.name());
    let window = SPARK.window.iter().map(|function| function.name());
    let mut names: Vec<&str> = scalar.chain(aggregate).chain(window).collect();
    names.sort_unstable();
    names
}

/// Every name and alias by which a session finds a function.
pub(crate) fn names(state: &SessionState) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    names.extend(state.scalar_functions().keys().cloned());
    names.extend(state.aggregate_functions().keys().cloned());
    names.extend(state.window_functions().keys().cloned());
    names.extend(state.higher_order_functions().keys().cloned());
    names.extend(state.table_functions().keys().cloned());
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_is_never_replaced() {
        let plain = SessionStateBuilder::new().with_default_features().build();
        let ours = with_functions(SessionStateBuilder::new()).build();
        for (name, function) in plain.scalar_functions() {
            assert_eq!(&ours.scalar_functions()[name], function, "{name}");
        }
        for (name, function) in plain.aggregate_functions() {
            assert_eq!(&ours.aggregate_functions()[name], function, "{name}");
            assert!(!ours.scalar_functions().contains_key(name), "{name} would hide the aggregate");
        }
        for name in ["avg", "date_part", "concat", "substring"] {
            assert!(!spark_functions().contains(&name), "{name}");
        }
    }

    /// The book lists them all.
    #[test]
    fn the_book_lists_sparks_functions() {
        let book = include_str!("../../../docs/sql.md");
        let missing: Vec<&str> =
            spark_functions().into_iter().filter(|name| !book.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/sql.md does not name {missing:?}");
    }

    #[tokio::test]
    async fn sparks_functions_answer_as_in_spark() {
        let context = datafusion::prelude::SessionContext::new_with_state(
            with_functions(SessionStateBuilder::new()).build(),
        );
        let sql = "SELECT hex(255) = 'FF' AND bit_count(7) = 3 AND crc32('Spark') = 1557323817 \
                   AND next_day(DATE '2015-01-14', 'TU') = DATE '2015-01-20' AS same";
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        let column = arrow::array::AsArray::as_boolean(batches[0].column(0));
        assert!(column.value(0));
    }
}
