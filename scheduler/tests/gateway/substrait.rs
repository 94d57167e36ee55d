//! DataFrames that were built elsewhere, here by DataFusion in this process.

use super::flight::{Client, fetch, ours, query, text};
use super::{Served, smoke};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionCreatePreparedStatementResult, ActionCreatePreparedSubstraitPlanRequest, Any, CommandGetSqlInfo,
    CommandPreparedStatementQuery, CommandStatementSubstraitPlan, DoPutUpdateResult, ProstMessageExt,
    SqlInfo, SubstraitPlan,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo};
use datafusion::datasource::empty::EmptyTable;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::prelude::*;
use datafusion_substrait::logical_plan::producer::to_substrait_plan;
use datafusion_substrait::substrait::proto::plan_rel::RelType as PlanRelType;
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::write_rel::{WriteOp, WriteType};
use datafusion_substrait::substrait::proto::{NamedObjectWrite, Plan, PlanRel, Rel, WriteRel};
use futures::stream;
use prost::Message;
use std::sync::Arc;
use tidemill_core::Code;
use tidemill_scheduler::gateway::Credentials;

/// A session that knows the server's tables by name and columns only.
fn local() -> SessionContext {
    let context = SessionContext::new();
    let columns = vec![Field::new("n", DataType::Int32, true), Field::new("w", DataType::Utf8, true)];
    context.register_table("t", Arc::new(EmptyTable::new(Arc::new(Schema::new(columns))))).unwrap();
    context
}

async fn server() -> (Served, Client) {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    query(&mut client, "CREATE TABLE t (n INT, w VARCHAR) AS VALUES (1, 'a'), (2, 'b'), (3, 'b')")
        .await
        .unwrap();
    (served, client)
}

fn plan_of(frame: &DataFrame, context: &SessionContext) -> Plan {
    *to_substrait_plan(frame.logical_plan(), &context.state()).unwrap()
}

fn command(plan: &Plan) -> CommandStatementSubstraitPlan {
    let plan = SubstraitPlan { plan: plan.encode_to_vec().into(), version: "0.85.0".to_owned() };
    CommandStatementSubstraitPlan { plan: Some(plan), transaction_id: None }
}

async fn info(client: &mut Client, command: impl ProstMessageExt) -> Result<FlightInfo, FlightError> {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    Ok(client.inner_mut().get_flight_info(descriptor).await?.into_inner())
}

async fn rows(client: &mut Client, plan: &Plan) -> Result<String, FlightError> {
    let info = info(client, command(plan)).await?;
    let rows = fetch(client, info).await?;
    Ok(pretty_format_batches(&rows).unwrap().to_string())
}

#[tokio::test]
async fn a_data_frame_runs_here() {
    let (_served, mut client) = server().await;
    let context = local();
    let frame = context.table("t").await.unwrap();
    let grouped = frame
        .clone()
        .filter(col("n").gt(lit(0)))
        .unwrap()
        .aggregate(vec![col("w")], vec![sum(col("n")).alias("total")])
        .unwrap()
        .sort(vec![col("w").sort(true, false)])
        .unwrap();
    let told = rows(&mut client, &plan_of(&grouped, &context)).await.unwrap();
    assert!(told.contains("| a | 1     |") && told.contains("| b | 5     |"), "{told}");

    let numbered = frame
        .clone()
        .window(vec![
            row_number().order_by(vec![col("n").sort(false, false)]).build().unwrap().alias("place"),
        ])
        .unwrap();
    let other = context.table("t").await.unwrap().alias("o").unwrap();
    let joined = numbered
        .join(other, JoinType::Inner, &["w"], &["w"], None)
        .unwrap()
        .select(vec![col("o.n").alias("other"), col("place")])
        .unwrap()
        .sort(vec![col("other").sort(true, false), col("place").sort(true, false)])
        .unwrap();
    let told = rows(&mut client, &plan_of(&joined, &context)).await.unwrap();
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let expected = [
        "| 1     | 3     |",
        "| 2     | 1     |",
        "| 2     | 2     |",
        "| 3     | 1     |",
        "| 3     | 2     |",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_prepared_plan_tells_its_schema_and_takes_parameters() {
    let (_served, mut client) = server().await;
    let context = local();
    let frame = context.sql("SELECT w FROM t WHERE n = $1").await.unwrap();
    let plan = command(&plan_of(&frame, &context)).plan;
    let request = ActionCreatePreparedSubstraitPlanRequest { plan, transaction_id: None };
    let action = Action::new("CreatePreparedSubstraitPlan", request.as_any().encode_to_vec());
    let body = client.do_action(action).await.unwrap().message().await.unwrap().unwrap().body;
    let created: ActionCreatePreparedStatementResult = Any::decode(body).unwrap().unpack().unwrap().unwrap();
    assert!(!created.dataset_schema.is_empty() && !created.parameter_schema.is_empty());

    let handle = created.prepared_statement_handle;
    let bound = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let number: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    let batch = RecordBatch::try_from_iter([("0", number)]).unwrap();
    let descriptor = FlightDescriptor::new_cmd(bound.as_any().encode_to_vec());
    let data = arrow_flight::utils::batches_to_flight_data(&batch.schema(), vec![batch]).unwrap();
    let mut data: Vec<FlightData> = data;
    data[0].flight_descriptor = Some(descriptor);
    client.do_put(stream::iter(data)).await.unwrap().message().await.unwrap().unwrap();
    let info = info(&mut client, bound).await.unwrap();
    let rows = fetch(&mut client, info).await.unwrap();
    let rows = pretty_format_batches(&rows).unwrap().to_string();
    assert!(rows.contains("| b |") && !rows.contains("| a |"), "{rows}");
}

#[tokio::test]
async fn a_plan_that_inserts_is_an_update() {
    let (_served, mut client) = server().await;
    let context = local();
    let frame = context.sql("SELECT CAST(n + 10 AS INT) AS n, w FROM t").await.unwrap();
    let mut plan = plan_of(&frame, &context);
    let Some(PlanRelType::Root(root)) = plan.relations[0].rel_type.take() else { panic!("no root") };
    let mut write = WriteRel {
        write_type: Some(WriteType::NamedTable(NamedObjectWrite {
            names: vec!["t".to_owned()],
            advanced_extension: None,
        })),
        input: root.input.map(Box::new),
        table_schema: Some(datafusion_substrait::substrait::proto::NamedStruct {
            names: vec!["n".to_owned(), "w".to_owned()],
            ..Default::default()
        }),
        ..WriteRel::default()
    };
    write.set_op(WriteOp::Insert);
    let mut send = async |write: &WriteRel| {
        let rel = Rel { rel_type: Some(RelType::Write(Box::new(write.clone()))) };
        plan.relations = vec![PlanRel { rel_type: Some(PlanRelType::Rel(rel)) }];
        let descriptor = FlightDescriptor::new_cmd(command(&plan).as_any().encode_to_vec());
        let data = FlightData::new().with_descriptor(descriptor);
        let result = client.do_put(stream::iter([data])).await?.message().await?.unwrap();
        Ok::<_, FlightError>(DoPutUpdateResult::decode(result.app_metadata)?.record_count)
    };
    assert_eq!(send(&write).await.unwrap(), 3);
    write.set_op(WriteOp::Delete);
    let (code, error) = ours(send(&write).await.unwrap_err());
    assert_eq!((code, error.code), (tonic::Code::Unimplemented, Code::Unsupported));
    let told = text(&mut client, "SELECT * FROM t WHERE n > 10 ORDER BY n").await;
    assert!(told.contains("| 11 | a |") && told.contains("| 13 | b |"), "{told}");
}

#[tokio::test]
async fn the_server_says_that_it_takes_plans_and_what_is_wrong_with_them() {
    let (served, mut client) = server().await;
    let wanted = CommandGetSqlInfo { info: vec![SqlInfo::FlightSqlServerSubstrait as u32] };
    let told = info(&mut client, wanted).await.unwrap();
    let told = pretty_format_batches(&fetch(&mut client, told).await.unwrap()).unwrap().to_string();
    assert!(told.contains("true"), "{told}");

    let context = local();
    let missing = EmptyTable::new(Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true)])));
    context.register_table("missing", Arc::new(missing)).unwrap();
    let frame = context.table("missing").await.unwrap();
    let (code, error) = ours(rows(&mut client, &plan_of(&frame, &context)).await.unwrap_err());
    assert_eq!((code, error.code), (tonic::Code::NotFound, Code::UnknownObject), "{error}");
    assert_eq!(served.frontend.running_jobs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn python_data_frames() {
    smoke("substrait_smoke.py", &Served::start(Credentials::default()).await, &[]).await;
}
