//! The queries themselves, over plain tables: what they leave of each row.

use super::*;
use crate::statement::TableChange;
use crate::{Statement, parse, plan_query};
use datafusion::prelude::{SessionConfig, SessionContext};

/// Files 0 (ids 1, 2) and 1 (ids 3, NULL).
const TARGET: &str = "SELECT * FROM (VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 1), (NULL, 'n', 1)) \
                      AS v(id, name, __file_number)";

async fn rows(context: &SessionContext, sql: &str) -> String {
    let state = with_target(&context.state(), target_table(context).await).unwrap();
    let query = crate::dialect::parse_query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let plan = plan_query(&state, query).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let context = SessionContext::new_with_state(state);
    let batches = context.execute_logical_plan(plan).await.unwrap().collect().await;
    let batches = batches.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string();
    let mut lines: Vec<String> = text
        .lines()
        .skip(3)
        .filter(|line| line.starts_with('|'))
        .map(|line| line.split('|').map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned())
        .collect();
    lines.sort();
    lines.join("; ")
}

async fn target_table(context: &SessionContext) -> std::sync::Arc<dyn datafusion::catalog::TableProvider> {
    context.sql(TARGET).await.unwrap().into_view()
}

async fn context() -> (SessionContext, Target) {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    context.sql("CREATE TABLE s AS SELECT * FROM (VALUES (2, 'B'), (4, 'D')) AS v(id, name)").await.unwrap();
    context.sql("CREATE TABLE gone AS SELECT * FROM (VALUES (2), (NULL)) AS v(id)").await.unwrap();
    let schema = context.sql("SELECT id, name FROM s").await.unwrap().schema().as_arrow().clone();
    let target = Target::new("t", &schema, &Default::default());
    (context, target)
}

#[tokio::test]
async fn what_a_delete_touches_and_leaves() {
    let (context, target) = context().await;
    assert_eq!(rows(&context, &touched(&target, "t.id >= 2").unwrap()).await, "0 1; 1 1");
    // NULL is not true: the row stays.
    assert_eq!(rows(&context, &deleted(&target, "id >= 2").unwrap()).await, "1 a; n");
    assert_eq!(
        rows(&context, &deleted(&target, "id IN (SELECT id FROM gone)").unwrap()).await,
        "1 a; 3 c; n"
    );
    let exists = "EXISTS (SELECT 1 FROM s WHERE s.id = t.id)";
    assert_eq!(rows(&context, &touched(&target, exists).unwrap()).await, "0 1");
    assert_eq!(rows(&context, &deleted(&target, exists).unwrap()).await, "1 a; 3 c; n");
    let scalar = "id > (SELECT min(id) FROM s)";
    assert_eq!(rows(&context, &deleted(&target, scalar).unwrap()).await, "1 a; 2 b; n");
}

/// Each of the four rows is touched or left, by whatever condition; ids are 1, 2, 3 and NULL, `s` has 2 and 4, `gone`
/// has 2 and NULL.
#[tokio::test]
async fn subqueries_in_conditions() {
    let (context, target) = context().await;
    for (condition, left) in [
        // A query that gives no plain column.
        ("id IN (SELECT min(id) FROM s)", "1 a; 3 c; n"),
        ("id IN (SELECT id + 1 FROM s)", "1 a; 2 b; n"),
        ("id = 1 OR id IN (SELECT min(id) FROM s)", "3 c; n"),
        ("id IN (SELECT max(id) FROM s GROUP BY name)", "1 a; 3 c; n"),
        ("id IN (SELECT id FROM s UNION ALL SELECT 3)", "1 a; n"),
        // NULLs: of the query, of the row, and of neither.
        ("id NOT IN (SELECT id FROM gone)", "1 a; 2 b; 3 c; n"),
        ("id NOT IN (SELECT id FROM s)", "2 b; n"),
        ("id NOT IN (SELECT id FROM s WHERE false)", ""),
        ("id = 1 OR id NOT IN (SELECT id FROM gone)", "2 b; 3 c; n"),
        ("NOT (id IN (SELECT id FROM gone) OR id = 1)", "1 a; 2 b; 3 c; n"),
        ("NOT (id IN (SELECT id FROM s) OR id = 1)", "1 a; 2 b; n"),
        ("(id IN (SELECT id FROM gone)) IS NULL", "2 b"),
        ("(id NOT IN (SELECT min(id) FROM s)) = (name = 'a')", "3 c; n"),
        // EXISTS, scalar and nested subqueries, alone and among others.
        ("EXISTS (SELECT 1 FROM s WHERE s.id = t.id AND s.name <> t.name)", "1 a; 3 c; n"),
        ("NOT EXISTS (SELECT 1 FROM s WHERE s.id = t.id)", "2 b"),
        ("id = 3 OR EXISTS (SELECT 1 FROM s WHERE s.id > t.id + 2)", "2 b; n"),
        ("EXISTS (SELECT max(id) FROM s WHERE false)", ""),
        ("id = (SELECT min(id) FROM s) OR name = 'n'", "1 a; 3 c"),
        ("id <= (SELECT max(s.id) FROM s WHERE s.id = t.id) AND id > 1", "1 a; 3 c; n"),
        ("id IN (SELECT id FROM s WHERE id IN (SELECT max(id) FROM gone))", "1 a; 3 c; n"),
        ("id IN (SELECT id FROM s WHERE name = (SELECT min(name) FROM s)) AND name = 'b'", "1 a; 3 c; n"),
    ] {
        let rest = rows(&context, &deleted(&target, condition).unwrap()).await;
        assert_eq!(rest, left, "{condition}");
        let count = format!("SELECT sum(n) FROM ({}) AS x(f, n)", touched(&target, condition).unwrap());
        let count: usize = rows(&context, &count).await.parse().unwrap_or(0);
        let kept = left.split("; ").filter(|row| !row.is_empty()).count();
        assert_eq!(count, 4 - kept, "{condition}");
        let set = [("name".to_owned(), "'new'".to_owned())];
        let updated = rows(&context, &updated(&target, &set, Some(condition)).unwrap()).await;
        assert_eq!(updated.matches("new").count(), count, "{condition}: {updated}");
        assert_eq!(updated.split("; ").count(), 4, "{condition}: {updated}");
    }
}

#[tokio::test]
async fn subqueries_that_cannot_be_are_refused_by_name() {
    let (_, target) = context().await;
    let set = [("name".to_owned(), "CASE WHEN id IN (SELECT id FROM s) THEN 'x' END".to_owned())];
    let error = updated(&target, &set, None).unwrap_err();
    assert!(error.message.contains("id IN (SELECT id FROM s)"), "{error}");
    assert!(replaced(&target, "id IN (SELECT id FROM s)", "SELECT 1").is_err());
    for clauses in [
        "ON t.id = (SELECT min(id) FROM s) WHEN MATCHED THEN DELETE",
        "ON t.id = s.id WHEN MATCHED AND EXISTS (SELECT 1 FROM gone) THEN DELETE",
        "ON t.id = s.id WHEN MATCHED THEN UPDATE SET name = CASE WHEN t.id IN (SELECT id FROM gone) THEN 'x' END",
    ] {
        let Statement::Change(change) = parse(&format!("MERGE INTO t USING s {clauses}"), "public").unwrap()
        else {
            panic!("{clauses}")
        };
        let TableChange::Merge(merge) = *change else { panic!("{clauses}") };
        let error = MergeQueries::new(&target, &merge, vec!["id".to_owned()]).unwrap_err();
        assert_eq!(error.code, tidemill_core::Code::Unsupported, "{clauses}");
        assert!(error.hint.unwrap().contains("source"), "{clauses}");
    }
}

#[tokio::test]
async fn what_an_update_makes_of_rows() {
    let (context, target) = context().await;
    let set = [("name".to_owned(), "name || id".to_owned())];
    assert_eq!(
        rows(&context, &updated(&target, &set, Some("t.id >= 2")).unwrap()).await,
        "1 a; 2 b2; 3 c3; n"
    );
    let in_list = Some("t.id IN (SELECT id FROM s)");
    assert_eq!(rows(&context, &updated(&target, &set, in_list).unwrap()).await, "1 a; 2 b2; 3 c; n");
    let from_other = [("name".to_owned(), "(SELECT max(name) FROM s WHERE s.id = t.id)".to_owned())];
    assert_eq!(
        rows(&context, &updated(&target, &from_other, Some("id = 2")).unwrap()).await,
        "1 a; 2 B; 3 c; n"
    );
    let unknown = [("nam".to_owned(), "1".to_owned())];
    let error = updated(&target, &unknown, None).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("did you mean `name`?"));
}

#[tokio::test]
async fn what_replace_where_keeps_and_refuses() {
    let (context, target) = context().await;
    let new = "SELECT 2 AS id, 'new' AS name UNION ALL SELECT 1, 'bad'";
    assert_eq!(
        rows(&context, &replaced(&target, "id >= 2", new).unwrap()).await,
        "1 a 0; 1 bad -3; 2 new 2; n 0"
    );
}

#[tokio::test]
async fn what_a_merge_makes_of_rows() {
    let (context, target) = context().await;
    let merge = async |clauses: &str| {
        let text = format!("MERGE INTO t USING s ON t.id = s.id {clauses}");
        let Statement::Change(change) = parse(&text, "public").unwrap() else { panic!("{text}") };
        let TableChange::Merge(mut merge) = *change else { panic!("{text}") };
        merge.source = "s".to_owned();
        let queries = MergeQueries::new(&target, &merge, vec!["id".to_owned(), "name".to_owned()]).unwrap();
        let touched = rows(&context, &queries.touched()).await;
        (touched, rows(&context, &queries.merged().unwrap()).await)
    };
    let (touched, merged) =
        merge("WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id * 10)").await;
    assert_eq!(touched, "0 1");
    assert_eq!(merged, "1 a 0; 2 B 1; 3 c 0; 40  2; n 0");
    let (_, merged) = merge(
        "WHEN MATCHED AND s.name = 'X' THEN DELETE WHEN MATCHED THEN UPDATE SET name = s.name || t.name \
         WHEN NOT MATCHED BY SOURCE AND t.id = 3 THEN DELETE \
         WHEN NOT MATCHED BY SOURCE AND t.id IS NULL THEN UPDATE SET id = 0",
    )
    .await;
    assert_eq!(merged, "0 n 1; 1 a 0; 2 Bb 1; 3 c -1");
    let (_, merged) = merge("WHEN NOT MATCHED AND s.id > 9 THEN INSERT *").await;
    assert!(merged.ends_with("-2"), "{merged}");
    let (_, merged) = merge("WHEN NOT MATCHED THEN INSERT *").await;
    assert_eq!(merged, "4 D 2");
}

#[tokio::test]
async fn what_a_merge_adds_to_the_table() {
    let (context, mut target) = context().await;
    let source = "(VALUES (2, 'B', 'red'), (4, 'D', 'blue')) AS v(id, name, colour)";
    let source = context.sql(&format!("SELECT * FROM {source}")).await.unwrap();
    let columns = source.schema().as_arrow().clone();
    context.register_table("s2", source.into_view()).unwrap();
    let merge = |with: &str, clauses: &str| {
        let text = format!("MERGE {with} INTO t USING s2 AS s ON t.id = s.id {clauses}");
        let Statement::Change(change) = parse(&text, "public").unwrap() else { panic!("{text}") };
        let TableChange::Merge(mut merge) = *change else { panic!("{text}") };
        merge.source = "s2".to_owned();
        merge
    };
    let both = "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *";
    let names = |schema: &arrow::datatypes::Schema| -> Vec<String> {
        schema.fields().iter().map(|field| field.name().clone()).collect()
    };
    let evolving = merge("WITH SCHEMA EVOLUTION", both);
    let added = added_columns(&target, &evolving, &columns).unwrap();
    assert_eq!(names(&added), ["colour"]);
    assert!(added.field(0).is_nullable());
    assert!(names(&added_columns(&target, &merge("", both), &columns).unwrap()).is_empty());
    let named =
        "WHEN MATCHED THEN UPDATE SET colour = s.colour WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)";
    let named = merge("WITH SCHEMA EVOLUTION", named);
    assert_eq!(names(&added_columns(&target, &named, &columns).unwrap()), ["colour"]);
    let silent = merge("WITH SCHEMA EVOLUTION", "WHEN MATCHED THEN DELETE");
    assert!(names(&added_columns(&target, &silent, &columns).unwrap()).is_empty());

    target.add(&added);
    let queries = MergeQueries::new(&target, &evolving, names(&columns)).unwrap();
    assert_eq!(
        rows(&context, &queries.merged().unwrap()).await,
        "1 a  0; 2 B red 1; 3 c  0; 4 D blue 2; n  0"
    );
    let queries = MergeQueries::new(&target, &named, names(&columns)).unwrap();
    assert_eq!(rows(&context, &queries.merged().unwrap()).await, "1 a  0; 2 b red 1; 3 c  0; 4   2; n  0");

    target.columns[1].name = "Name".to_owned();
    let error = added_columns(&target, &evolving, &columns).unwrap_err();
    assert!(error.message.contains("`name`") && error.message.contains("`Name`"), "{error}");
}
