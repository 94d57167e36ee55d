use super::*;
use crate::{Services, session};
use arrow::util::pretty::pretty_format_batches;
use datafusion::physical_plan::{displayable, execute_stream};
use datafusion::prelude::SessionContext;
use parking_lot::Mutex;
use tidemill_core::ConnectorRegistry;
use tidemill_core::config::Config;

async fn context(folder: &std::path::Path) -> SessionContext {
    let services = Services::new(Config::default(), ConnectorRegistry::default());
    let runtime = session::runtime_env(&services.config).unwrap();
    let mut state = session::session_state(&services, runtime).build();
    let options = state.config_mut().options_mut();
    options.execution.target_partitions = 3;
    options.optimizer.repartition_file_min_size = 0;
    // As the pipelined engine plans; joins of small tables are shuffled here as those of large ones are.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options.optimizer.hash_join_single_partition_threshold = 0;
    options.optimizer.hash_join_single_partition_threshold_rows = 0;
    let context = SessionContext::new_with_state(state);
    for (name, query) in [
        ("region", "SELECT value AS r_key, concat('region ', value) AS r_name FROM generate_series(0, 4)"),
        ("nation", "SELECT value AS n_key, value % 5 AS n_region FROM generate_series(0, 24)"),
        ("supplier", "SELECT value AS s_key, value % 25 AS s_nation FROM generate_series(0, 9999)"),
        (
            "item",
            "SELECT value AS i_key, CASE WHEN value % 11 > 0 THEN value * 7919 % 12000 END AS i_supplier, \
             value % 50 AS i_quantity FROM generate_series(1, 40000)",
        ),
    ] {
        let file = folder.join(format!("{name}.parquet"));
        for sql in [
            format!("COPY ({query}) TO '{}'", file.display()),
            format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}'", file.display()),
        ] {
            context.sql(&sql).await.unwrap().collect().await.unwrap();
        }
    }
    context
}

async fn planned(context: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    context.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
}

async fn answer(context: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> String {
    let batches = collect(plan, context.task_ctx()).await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
    displayable(plan.as_ref()).indent(false).to_string()
}

#[tokio::test]
async fn scans_know_the_keys_of_small_build_sides_before_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path()).await;
    let sql = "SELECT count(*) FROM supplier, nation, region \
               WHERE s_nation = n_key AND n_region = r_key AND r_name = 'region 3'";
    let plan = read(planned(&context, sql).await, &context.task_ctx(), None).await.unwrap().plan;
    let shown = shown(&plan);
    // Few rows are in the plan themselves.
    assert!(!shown.contains("nation.parquet") && shown.contains("partition_sizes=[1]"), "{shown}");
    let scan = shown.lines().find(|line| line.contains("supplier.parquet")).unwrap();
    assert!(scan.contains("s_nation@1 >= 3 AND s_nation@1 <= 23 AND is_key(s_nation@1, "), "{shown}");
    // The plan itself has not been run.
    let rows = collect(plan, context.task_ctx()).await.unwrap();
    assert_eq!(rows[0].column(0).as_ref(), &arrow::array::Int64Array::from(vec![2000]));
}

#[tokio::test]
async fn no_keys_and_keys_that_leave_nothing_out_are_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path()).await;
    for sql in [
        "SELECT count(*) FROM supplier JOIN nation ON s_nation = n_key WHERE n_region = 9",
        "SELECT count(*) FROM supplier a JOIN supplier b ON a.s_key = b.s_key",
    ] {
        let plan = read(planned(&context, sql).await, &context.task_ctx(), None).await.unwrap().plan;
        assert!(!shown(&plan).contains("is_key"), "{}", shown(&plan));
    }
}

#[tokio::test]
async fn rows_are_not_put_beside_files_that_are_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path()).await;
    for name in ["a", "b"] {
        let place = folder.path().join(name);
        for sql in [
            format!(
                "COPY (SELECT n_key AS x, n_region AS y FROM nation) TO '{}/' STORED AS PARQUET PARTITIONED BY (y)",
                place.display()
            ),
            format!(
                "CREATE EXTERNAL TABLE {name} (x BIGINT, y BIGINT) STORED AS PARQUET PARTITIONED BY (y) \
                 LOCATION '{}/'",
                place.display()
            ),
        ] {
            context.sql(&sql).await.unwrap().collect().await.unwrap();
        }
    }
    context.sql("SET datafusion.optimizer.preserve_file_partitions = 1").await.unwrap();
    let plan = planned(&context, "SELECT count(*) FROM a JOIN b USING (y)").await;
    assert!(!shown(&plan).contains("RepartitionExec: partitioning=Hash"), "{}", shown(&plan));
    let plan = read(plan, &context.task_ctx(), None).await.unwrap().plan;
    assert!(shown(&plan).contains("is_key"), "{}", shown(&plan));
    let rows = collect(plan, context.task_ctx()).await.unwrap();
    assert_eq!(rows[0].column(0).as_ref(), &arrow::array::Int64Array::from(vec![125]));
}

/// Runs parts of plans here, and remembers them.
struct Here {
    context: SessionContext,
    ran: Mutex<Vec<String>>,
}

#[async_trait]
impl Workers for Here {
    async fn run(&self, plan: Arc<dyn ExecutionPlan>) -> Result<(SendableRecordBatchStream, StageReports)> {
        self.ran.lock().push(shown(&plan));
        let stream = execute_stream(plan, self.context.task_ctx()).unwrap();
        Ok((stream, Arc::new(|| Box::pin(async { Ok(Vec::new()) }))))
    }
}

#[tokio::test]
async fn answers_stay_when_workers_read_build_sides_first() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path()).await;
    // Keys that are few, and are found by grouping what is too much to be read here.
    let few = "SELECT i_supplier FROM item GROUP BY i_supplier HAVING sum(i_quantity) > 190";
    for (sql, runs) in [
        (format!("SELECT count(*), sum(s_nation) FROM supplier WHERE s_key IN ({few})"), 1),
        (
            format!("SELECT count(*) FROM item a JOIN supplier ON i_supplier = s_key WHERE s_key IN ({few})"),
            1,
        ),
        (format!("SELECT count(*), sum(i_key) FROM item WHERE i_supplier IN ({few}) AND i_quantity < 40"), 1),
        (
            format!(
                "SELECT count(*) FROM (SELECT DISTINCT s_key, s_nation FROM supplier) WHERE s_key IN ({few})"
            ),
            1,
        ),
        // Rows without a partner come out: of the side that is read first, of the other one, of both.
        (format!("SELECT count(*), count(s_key) FROM ({few}) f LEFT JOIN supplier ON i_supplier = s_key"), 1),
        (
            format!(
                "SELECT count(*), count(i_supplier) FROM ({few}) f RIGHT JOIN supplier ON i_supplier = s_key"
            ),
            0,
        ),
        (format!("SELECT count(*) FROM ({few}) f FULL JOIN supplier ON i_supplier = s_key"), 0),
        (format!("SELECT count(*) FROM supplier WHERE s_key NOT IN ({few})"), 0),
        (
            format!(
                "SELECT count(*) FROM supplier WHERE NOT EXISTS (SELECT 1 FROM ({few}) f WHERE i_supplier = s_key)"
            ),
            0,
        ),
        (
            format!(
                "SELECT count(*) FROM (SELECT * FROM supplier WHERE s_key IN ({few})) s \
                 WHERE NOT EXISTS (SELECT 1 FROM item WHERE i_supplier = s_key AND i_quantity <> s_nation)"
            ),
            1,
        ),
        (
            format!(
                "SELECT count(*) FROM ({few}) f WHERE NOT EXISTS (SELECT 1 FROM supplier WHERE s_key = i_supplier)"
            ),
            1,
        ),
        (
            format!(
                "SELECT count(*) FROM (SELECT * FROM supplier ORDER BY s_nation, s_key LIMIT 500) WHERE s_key IN ({few})"
            ),
            1,
        ),
        (
            format!(
                "SELECT count(*), sum(b.i_quantity) FROM item a \
                 JOIN supplier ON a.i_supplier = s_key JOIN item b ON b.i_key = a.i_key \
                 LEFT JOIN nation ON n_key = s_nation AND n_region = 2 WHERE s_key IN ({few})"
            ),
            1,
        ),
    ] {
        let expected = answer(&context, planned(&context, &sql).await).await;
        let here = Here { context: context.clone(), ran: Mutex::default() };
        let plan = planned(&context, &sql).await;
        let before = shown(&plan);
        let read = read_by(plan, &context.task_ctx(), Some(&here), Worth { here: 0, sent: 1 }).await.unwrap();
        let after = shown(&read.plan);
        assert_eq!(answer(&context, read.plan).await, expected, "{sql}\n{before}\n{after}");
        let ran = here.ran.lock();
        assert!(
            ran.len() >= runs && (runs > 0 || !after.contains("is_key")),
            "{sql}\n{before}\n{after}\n{ran:?}"
        );
    }
}

#[tokio::test]
async fn an_input_of_unknown_conditions_is_tried_where_its_rows_come_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(folder.path()).await;
    let unknown = "SELECT i_supplier FROM item WHERE i_key * i_quantity % 11 = 3";
    let joined = format!("SELECT s_nation FROM ({unknown}) i, supplier WHERE i_supplier = s_key");
    let grouped = format!("{unknown} GROUP BY i_supplier");
    let (all, fewer) = ("SELECT i_key FROM item", "SELECT n_key FROM nation");
    let [some, joined, grouped, all, fewer] =
        futures::future::join_all([unknown, &joined, &grouped, all, fewer].map(|sql| planned(&context, sql)))
            .await
            .try_into()
            .unwrap();
    assert!(may_prove_small(&some, &all) && may_prove_small(&joined, &all), "{}", shown(&joined));
    assert!(!may_prove_small(&some, &fewer), "more are expected than there are on the other side");
    assert!(!may_prove_small(&grouped, &all), "groups come when all is read: {}", shown(&grouped));
}
