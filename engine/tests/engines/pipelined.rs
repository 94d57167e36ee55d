use crate::cluster::{Cluster, rows, run};
use crate::toys::{Rows, RowsExec, RowsTable, STALL, STALLED};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::physical_plan::displayable;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemill_core::Code;
use tidemill_engine::{Engine, JobKind};

fn text(plan: &Arc<dyn datafusion::physical_plan::ExecutionPlan>) -> String {
    displayable(plan.as_ref()).indent(false).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_descriptor_is_read_once_over_several_tasks() {
    let cluster = Cluster::of(2);
    for descriptors in [1, 2, 5] {
        let plan = RowsExec::of(&Rows::dense(descriptors, 100));
        let prepared = cluster.engine.prepare(plan.clone(), cluster.session.task_ctx()).await.unwrap();
        assert!(text(&prepared).contains("input_tasks=2"), "{}", text(&prepared));
        let batches = cluster.run(plan).await.unwrap();
        let mut keys: Vec<i64> = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, (0..descriptors * 100).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_does_the_work_instead_of_the_coordinator() {
    let cluster = Cluster::of(1);
    let plan = RowsExec::of(&Rows::dense(1, 10));
    let prepared = cluster.engine.prepare(plan.clone(), cluster.session.task_ctx()).await.unwrap();
    assert!(text(&prepared).contains("DistributedExec"), "{}", text(&prepared));
    assert_eq!(rows(&cluster.run(plan).await.unwrap()), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_whole() {
    let cluster = Cluster::of(2);
    cluster.session.register_table("t", Arc::new(RowsTable(Rows::dense(4, 250)))).unwrap();
    let plan =
        cluster.plan("SELECT k % 10 AS g, count(*) AS n, max(make_array(k)[1]) FROM t GROUP BY g").await;
    let batches = cluster.run(plan).await.unwrap();
    assert_eq!(rows(&batches), 10);
    for batch in batches {
        assert!(batch.column(1).as_primitive::<Int64Type>().values().iter().all(|count| *count == 100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_session_reach_the_tasks() {
    let cluster = Cluster::of(2);
    cluster.session.sql("SET datafusion.execution.batch_size = 77").await.unwrap();
    let batches = cluster.run(RowsExec::of(&Rows::dense(2, 1))).await.unwrap();
    assert_eq!(rows(&batches), 2);
    for batch in batches {
        assert!(batch.column(1).as_primitive::<Int64Type>().values().iter().all(|size| *size == 77));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_task_is_an_error() {
    let cluster = Cluster::of(2);
    let mut descriptors = Rows::dense(4, 10);
    descriptors[3].panics = true;
    let error = cluster.run(RowsExec::of(&descriptors)).await.unwrap_err();
    assert_eq!(error.code, Code::Internal, "{error}");
    assert!(error.to_string().contains("a descriptor says so"), "{error}");

    cluster.session.register_table("t", Arc::new(RowsTable(descriptors))).unwrap();
    let grouped = cluster.plan("SELECT k % 10 AS g, count(*) FROM t GROUP BY g").await;
    let error = cluster.run(grouped).await.unwrap_err();
    assert!(error.to_string().contains("a descriptor says so"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_is_an_error_with_advice() {
    let cluster = Cluster::of(0);
    let error = cluster.run(RowsExec::of(&Rows::dense(1, 1))).await.unwrap_err();
    assert_eq!(error.code, Code::NoExecutors);
    assert_eq!(cluster.engine.slots(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_answer_is_left_out_of_the_next_try() {
    let cluster = Cluster::of(1);
    // Nothing listens there: the executor has just died and is still a member.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cluster.members.add("dead", port);
    assert_eq!(rows(&cluster.run(RowsExec::of(&Rows::dense(4, 10))).await.unwrap()), 40);

    let plan = RowsExec::of(&Rows::dense(4, 10));
    let error = run(&cluster.engine, plan, &cluster.session, JobKind::Epoch).await.unwrap_err();
    assert_eq!(error.code, Code::WorkerLost, "an epoch is tried again by its driver: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_in_the_middle_is_survived() {
    let mut cluster = Cluster::of(2);
    let mut descriptors = Rows::dense(4, 10);
    descriptors[0].stalls = Some(0);
    descriptors[1].stalls = Some(0);
    cluster.session.register_table("t", Arc::new(RowsTable(descriptors))).unwrap();
    let plan = cluster.plan("SELECT k % 4 AS g, count(*) FROM t GROUP BY g").await;
    STALL[0].store(true, Ordering::SeqCst);
    let (engine, session) = (cluster.engine.clone(), cluster.session.clone());
    let running = tokio::spawn(async move { run(&engine, plan, &session, JobKind::Query).await });
    let stalled = async {
        while STALLED[0].load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), stalled).await.unwrap();
    STALL[0].store(false, Ordering::SeqCst);
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.kill_last();
        cluster
    });
    let cluster = cluster.await.unwrap();
    let batches = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap().unwrap();
    assert_eq!(rows(&batches), 4);
    assert_eq!(cluster.engine.slots(), 1);
}

/// A large list stays, so the coordinator runs all of the plan, and knows from the file that no other row is among the
/// first five when the worker is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_try_has_found_out_is_forgotten() {
    let cluster = Cluster::of(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.parquet");
    let setup = [
        format!(
            "COPY (SELECT value / 1000 AS k FROM range(6000)) TO '{}' OPTIONS ('format.max_row_group_size' 1000)",
            file.display()
        ),
        format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'", file.display()),
    ];
    for sql in setup {
        cluster.session.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    let late = Rows { from: 100, rows: 10, stalls: Some(1), ..Rows::default() };
    cluster.session.register_table("late", Arc::new(RowsTable(vec![late]))).unwrap();
    let first = "SELECT k FROM (SELECT k FROM t UNION ALL SELECT k FROM late) ORDER BY k LIMIT 5";
    let plan = cluster.plan(&format!("SELECT k, arrow_cast([k], 'LargeList(Int64)') FROM ({first})")).await;
    STALL[1].store(true, Ordering::SeqCst);
    let (engine, session, watched) = (cluster.engine.clone(), cluster.session.clone(), plan.clone());
    let running = tokio::spawn(async move { run(&engine, plan, &session, JobKind::Query).await });
    let found_out = async {
        while !text(&watched).contains("DynamicFilter [ k@0 < 0 ]") || STALLED[1].load(Ordering::SeqCst) == 0
        {
            tokio::task::yield_now().await;
        }
    };
    let found_out = tokio::time::timeout(Duration::from_secs(30), found_out).await;
    assert!(found_out.is_ok(), "{}", text(&watched));
    STALL[1].store(false, Ordering::SeqCst);
    cluster.members.remove("w1");
    let batches = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap().unwrap();
    let keys: Vec<i64> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    assert_eq!(keys, [0; 5], "{}", text(&watched));
}

/// A plan of one partition has no exchange that would bring the rows of several tasks together.
#[tokio::test(flavor = "multi_thread")]
async fn groups_sorts_and_joins_over_one_partition_stay_whole() {
    let cluster = Cluster::of(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.parquet");
    // Several row groups in one file: a scan of one partition that can be cut into tasks.
    let write = format!(
        "COPY (SELECT value AS k FROM range(12000)) TO '{}' OPTIONS ('format.max_row_group_size' 1000)",
        file.display()
    );
    cluster.session.sql(&write).await.unwrap().collect().await.unwrap();
    let table = format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'", file.display());
    cluster.session.sql(&table).await.unwrap();
    let grouped = "SELECT k % 3 AS g, count(*) AS n FROM t GROUP BY g";
    let limited =
        "SELECT k % 3 AS g, count(*) AS n FROM (SELECT k FROM t ORDER BY k DESC LIMIT 30) GROUP BY g";
    let joined = "SELECT a.k % 3 AS g, count(*) AS n FROM t a JOIN t b ON a.k = b.k GROUP BY g";
    let ranked = "SELECT CAST(r % 3 AS BIGINT) AS g, count(*) AS n FROM \
                  (SELECT row_number() OVER (ORDER BY k) AS r FROM t) GROUP BY g";
    for partitions in [1, 2] {
        let set = format!("SET datafusion.execution.target_partitions = {partitions}");
        cluster.session.sql(&set).await.unwrap();
        for (sql, each) in [(grouped, 4000), (limited, 10), (joined, 4000), (ranked, 4000)] {
            let plan = cluster.plan(sql).await;
            let batches = cluster.run(plan.clone()).await.unwrap();
            let column = |index: usize| -> Vec<i64> {
                let values =
                    |batch: &RecordBatch| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
                batches.iter().flat_map(values).collect()
            };
            let found: BTreeMap<i64, i64> = std::iter::zip(column(0), column(1)).collect();
            assert_eq!(rows(&batches), 3, "{}", text(&plan));
            assert_eq!(found, BTreeMap::from([(0, each), (1, each), (2, each)]), "{}", text(&plan));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_over_all_tasks_is_kept() {
    let cluster = Cluster::of(2);
    cluster.session.register_table("t", Arc::new(RowsTable(Rows::dense(4, 50)))).unwrap();
    let plan = cluster.plan("SELECT k FROM t ORDER BY k DESC").await;
    let batches = cluster.run(plan).await.unwrap();
    let keys: Vec<i64> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    assert_eq!(keys, (0..200).rev().collect::<Vec<_>>());
}

/// With one partition nothing above the limit would count the rows of several tasks.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_over_one_partition_is_that_of_all_tasks() {
    let cluster = Cluster::of(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.parquet");
    let setup = [
        format!(
            "COPY (SELECT value AS k FROM range(12000)) TO '{}' OPTIONS ('format.max_row_group_size' 1000)",
            file.display()
        ),
        format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{}'", file.display()),
        "SET datafusion.execution.target_partitions = 1".to_owned(),
    ];
    for sql in setup {
        cluster.session.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    for sql in [
        "SELECT k FROM t LIMIT 7",
        "SELECT k FROM t WHERE k % 2 = 0 LIMIT 7",
        "SELECT a.k FROM t a JOIN t b ON a.k = b.k LIMIT 7",
        "SELECT a.k + b.k FROM t a RIGHT JOIN (SELECT k FROM t LIMIT 7) b ON a.k = b.k",
    ] {
        let plan = cluster.plan(sql).await;
        assert_eq!(rows(&cluster.run(plan.clone()).await.unwrap()), 7, "{sql}\n{}", text(&plan));
    }
}

/// Three files in one partition cannot be dealt out evenly.
#[tokio::test(flavor = "multi_thread")]
async fn files_in_order_stay_in_order() {
    let cluster = Cluster::of(2);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().display();
    let mut setup: Vec<String> = (0..3)
        .map(|part| (part, part * 100, part * 100 + 100))
        .map(|(part, from, to)| {
            format!("COPY (SELECT value AS k FROM range({from}, {to})) TO '{folder}/{part}.parquet'")
        })
        .collect();
    setup.push(format!("CREATE EXTERNAL TABLE t STORED AS PARQUET WITH ORDER (k) LOCATION '{folder}/'"));
    setup.push("SET datafusion.execution.target_partitions = 1".to_owned());
    for sql in setup {
        cluster.session.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    let plan = cluster.plan("SELECT k FROM t ORDER BY k").await;
    let batches = cluster.run(plan).await.unwrap();
    let keys: Vec<i64> = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    assert_eq!(keys, (0..300).collect::<Vec<_>>());
}
