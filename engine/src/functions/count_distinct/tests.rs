use super::sets::Sets;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Int32Array, RecordBatch, StringArray,
    StringViewArray,
};
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

fn counts(sets: &mut dyn GroupsAccumulator) -> Vec<i64> {
    sets.evaluate(EmitTo::All).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringViewArray::from(values.to_vec()))
}

#[test]
fn each_group_has_its_own_values() {
    let mut sets = Sets::<i32>::default();
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(1), Some(2), None, Some(1)]));
    sets.update_batch(&[numbers.slice(1, 4)], &[0, 0, 1, 1], None, 3).unwrap();
    assert_eq!(counts(&mut sets), [2, 1, 0]);
}

#[test]
fn a_filter_and_null_count_for_nothing() {
    let mut sets = Sets::<i128>::default();
    let column = texts(&[Some("a"), Some("b"), None, Some("c")]);
    let filter = BooleanArray::from(vec![Some(true), Some(false), Some(true), None]);
    sets.update_batch(std::slice::from_ref(&column), &[0; 4], Some(&filter), 1).unwrap();
    let alone = sets.convert_to_state(&[column], Some(&filter)).unwrap();
    assert_eq!(counts(&mut sets), [1]);
    sets.merge_batch(&alone, &[0, 1, 2, 3], 4).unwrap();
    assert_eq!(counts(&mut sets), [1, 0, 0, 0]);
}

#[test]
fn sets_merge_whether_texts_are_long_or_short() {
    let (short, long) = ("twelve bytes", "more than twelve bytes");
    let state = |values: &[Option<&str>], groups: &[usize]| {
        let mut sets = Sets::<i128>::default();
        sets.update_batch(&[texts(values)], groups, None, 2).unwrap();
        sets.state(EmitTo::All).unwrap()
    };
    let one = state(&[Some(short), Some(long), Some(short)], &[0, 0, 1]);
    let other = state(&[Some(long), Some("another of more than twelve"), Some("")], &[0, 0, 0]);
    let mut sets = Sets::<i128>::default();
    for sent in [&one, &other, &one] {
        sets.merge_batch(sent, &[0, 1], 2).unwrap();
    }
    // What was merged can be sent on, as when it is spilled.
    let spilled = sets.state(EmitTo::All).unwrap();
    sets.merge_batch(&spilled, &[0, 1], 2).unwrap();
    assert_eq!(counts(&mut sets), [4, 1]);
}

#[test]
fn the_first_groups_can_go_alone() {
    let mut sets = Sets::<i128>::default();
    sets.update_batch(&[texts(&[Some("a"), Some("b"), Some("c")])], &[0, 1, 1], None, 2).unwrap();
    let before = sets.size();
    assert_eq!(sets.evaluate(EmitTo::First(1)).unwrap().as_primitive::<Int64Type>().values(), &[1]);
    assert!(sets.size() < before);
    assert_eq!(counts(&mut sets), [2]);
}

#[test]
fn bytes_that_are_no_set_are_an_error() {
    let mut sets = Sets::<i32>::default();
    let cut: ArrayRef = Arc::new(BinaryViewArray::from(vec![&[1u8, 2][..]]));
    sets.merge_batch(std::slice::from_ref(&cut), &[0], 1).unwrap();
    assert!(sets.evaluate(EmitTo::All).is_err());
}

#[tokio::test]
async fn statements_count_by_sets_under_the_same_name() {
    let ours = crate::functions::with_functions(Default::default()).build();
    let plain = SessionContext::new();
    let ours = SessionContext::new_with_state(ours);
    let table = "(VALUES (1, 'a', 2.5, true), (1, 'b', 2.5, false), (2, 'a', NULL, true), (2, 'a', 1.5, true)) \
                 AS t(g, s, f, b)";
    for sql in [
        format!("SELECT g, count(DISTINCT s) FROM {table} GROUP BY g ORDER BY g"),
        format!("SELECT g, count(DISTINCT s) AS n, sum(f), count(*) FROM {table} GROUP BY g ORDER BY g"),
        format!("SELECT count(DISTINCT s), g FROM {table} GROUP BY ROLLUP (g) ORDER BY g"),
        format!("SELECT g, count(DISTINCT s) FILTER (WHERE b) FROM {table} GROUP BY g ORDER BY g"),
        format!("SELECT g, count(DISTINCT f) FROM {table} GROUP BY g ORDER BY g"),
        format!("SELECT count(DISTINCT s), count(DISTINCT g) FROM {table}"),
        format!("SELECT g FROM {table} GROUP BY g HAVING count(DISTINCT s) > 1"),
    ] {
        let (one, other) = (ours.sql(&sql).await.unwrap(), plain.sql(&sql).await.unwrap());
        assert_eq!(one.schema().as_arrow().fields(), other.schema().as_arrow().fields(), "{sql}");
        let by_sets = one.clone().into_optimized_plan().unwrap().to_string().contains("count_distinct(");
        assert_eq!(by_sets, sql.contains("GROUP BY") && !sql.contains("DISTINCT f"), "{sql}");
        let shown = |batches: &[RecordBatch]| pretty_format_batches(batches).unwrap().to_string();
        assert_eq!(shown(&one.collect().await.unwrap()), shown(&other.collect().await.unwrap()), "{sql}");
    }
    let strings: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "x"]));
    let mut sets = Sets::<i128>::default();
    sets.update_batch(&[strings], &[0, 0, 0], None, 1).unwrap();
    assert_eq!(counts(&mut sets), [2]);
}
