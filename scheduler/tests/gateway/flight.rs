use super::{Served, eventually, secret};
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetDbSchemas, CommandGetExportedKeys, CommandGetPrimaryKeys, CommandGetTables,
    CommandGetXdbcTypeInfo, SqlInfo,
};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightInfo, IpcMessage};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use std::sync::Arc;
use tidemill_core::{Code, Error};
use tidemill_scheduler::frontend::api::AnswerKind;
use tidemill_scheduler::gateway::{Credentials, JobNote, PROGRESS_ACTION, RUN_ON_FETCH_HEADER, to_error};
use tonic::transport::Channel;

pub(crate) type Client = FlightSqlServiceClient<Channel>;

pub(crate) async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    assert_eq!(info.endpoint.len(), 1);
    let promised = info.clone().try_decode_schema().unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<RecordBatch> = client.do_get(ticket).await?.try_collect().await?;
    assert!(batches.iter().all(|batch| batch.schema().as_ref() == &promised), "{promised}");
    Ok(batches)
}

pub(crate) async fn query(client: &mut Client, sql: &str) -> Result<Vec<RecordBatch>, FlightError> {
    let info = client.execute(sql.to_owned(), None).await?;
    fetch(client, info).await
}

pub(crate) async fn text(client: &mut Client, sql: &str) -> String {
    pretty_format_batches(&query(client, sql).await.unwrap()).unwrap().to_string()
}

pub(crate) fn ours(error: FlightError) -> (tonic::Code, Error) {
    let FlightError::Tonic(status) = error else { panic!("no status: {error}") };
    let error = to_error(&status);
    assert_eq!(status.message(), error.to_string());
    (status.code(), error)
}

pub(crate) fn strings(batch: &RecordBatch, column: &str) -> Vec<String> {
    let array = batch.column_by_name(column).unwrap().as_any().downcast_ref::<StringArray>().unwrap().clone();
    array.iter().map(|value| value.unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_query_tells_its_job_and_its_rows() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let info =
        client.execute("SELECT 1 AS n, 'x' AS w, arrow_cast('v', 'Utf8View') AS v".to_owned(), None).await;
    let info = info.unwrap();
    let note: JobNote = serde_json::from_slice(&info.app_metadata).unwrap();
    assert_eq!((note.kind, note.reason.as_str()), (AnswerKind::Rows, "there is no other"));
    let rows = fetch(&mut client, info.clone()).await.unwrap();
    assert_eq!(rows[0].schema().field(2).data_type(), &DataType::Utf8);
    assert_eq!(rows[0].num_rows(), 1);
    // A result is there once.
    let (code, error) = ours(fetch(&mut client, info).await.unwrap_err());
    assert_eq!((code, error.code), (tonic::Code::NotFound, Code::UnknownObject));
    assert_eq!(served.frontend.running_jobs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_come_as_a_stream() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let info =
        client.execute("SELECT value FROM generate_series(1, 1000000)".to_owned(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = client.do_get(ticket).await.unwrap();
    let (mut rows, mut sum, mut batches) = (0, 0, 0);
    while let Some(batch) = stream.try_next().await.unwrap() {
        let values = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        rows += values.len();
        sum += arrow::compute::sum(values).unwrap_or(0);
        batches += 1;
    }
    assert_eq!((rows, sum), (1_000_000, 500_000_500_000));
    assert!(batches > 50, "{batches} batches");
}

#[tokio::test]
async fn statements_change_tables_and_count() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    assert_eq!(client.execute_update("CREATE TABLE t (n INT, w VARCHAR)".to_owned(), None).await.unwrap(), 0);
    let insert = "INSERT INTO t VALUES (1, 'a'), (2, 'b')".to_owned();
    assert_eq!(client.execute_update(insert, None).await.unwrap(), 2);
    // Clients that know only queries need not fetch, but get the count as a row.
    client.execute("INSERT INTO t VALUES (9, 'z')".to_owned(), None).await.unwrap();
    let counted = query(&mut client, "INSERT INTO t VALUES (3, 'c')").await.unwrap();
    assert_eq!(counted[0].schema().field(0).name(), "count");
    assert!(text(&mut client, "SELECT count(*) AS c FROM t").await.contains("| 4 |"));
    // Ours fetches, and meanwhile watches the job.
    client.set_header(RUN_ON_FETCH_HEADER, "true");
    let info = client.execute("INSERT INTO t VALUES (5, 'e')".to_owned(), None).await.unwrap();
    assert!(text(&mut client, "SELECT count(*) AS c FROM t").await.contains("| 4 |"));
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 1);
    assert!(text(&mut client, "SELECT count(*) AS c FROM t").await.contains("| 5 |"));
}

#[tokio::test]
async fn prepared_statements_take_parameters() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    client.execute_update("CREATE TABLE t (n INT, w VARCHAR)".to_owned(), None).await.unwrap();

    let mut insert = client.prepare("INSERT INTO t VALUES (?, ?)".to_owned(), None).await.unwrap();
    assert_eq!(insert.dataset_schema().unwrap(), &Schema::empty());
    let types: Vec<_> =
        insert.parameter_schema().unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types[0], DataType::Int32);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|n| format!("w{n}"))));
    insert.set_parameters(RecordBatch::try_from_iter([("0", numbers), ("1", words)]).unwrap()).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 1000);

    let mut select = client.prepare("SELECT w FROM t WHERE n = $1".to_owned(), None).await.unwrap();
    assert_eq!(select.dataset_schema().unwrap().field(0).name(), "w");
    for wanted in [7i64, 42] {
        let number: ArrayRef = Arc::new(Int64Array::from(vec![wanted]));
        select.set_parameters(RecordBatch::try_from_iter([("0", number)]).unwrap()).unwrap();
        let info = select.execute().await.unwrap();
        let rows = fetch(&mut client, info).await.unwrap();
        let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
        assert_eq!(strings(&rows, "w"), [format!("w{wanted}")]);
    }
    let mut closed = select.clone();
    select.close().await.unwrap();
    let (_, error) = ours(closed.execute().await.unwrap_err());
    assert_eq!(error.code, Code::UnknownObject);
}

#[tokio::test]
async fn drivers_learn_about_the_server() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    client.execute_update("CREATE TABLE orders (id BIGINT, name VARCHAR)".to_owned(), None).await.unwrap();

    let info = client.get_catalogs().await.unwrap();
    assert_eq!(strings(&fetch(&mut client, info).await.unwrap()[0], "catalog_name"), ["datafusion"]);

    let schemas = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: Some("pub%".to_owned()) };
    let info = client.get_db_schemas(schemas).await.unwrap();
    assert_eq!(strings(&fetch(&mut client, info).await.unwrap()[0], "db_schema_name"), ["public"]);

    let tables = CommandGetTables {
        db_schema_filter_pattern: Some("public".to_owned()),
        table_types: vec!["TABLE".to_owned()],
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = client.get_tables(tables).await.unwrap();
    let rows = &fetch(&mut client, info).await.unwrap()[0];
    assert_eq!(strings(rows, "table_name"), ["orders"]);
    let encoded = rows.column_by_name("table_schema").unwrap();
    let encoded = encoded.as_any().downcast_ref::<arrow::array::BinaryArray>().unwrap().value(0).to_vec();
    let columns = Schema::try_from(IpcMessage(encoded.into())).unwrap();
    assert_eq!(columns.field(1).data_type(), &DataType::Utf8);

    let info = client.get_table_types().await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 3);
    let info =
        client.get_sql_info(vec![SqlInfo::FlightSqlServerName, SqlInfo::FlightSqlServerReadOnly]).await;
    assert_eq!(fetch(&mut client, info.unwrap()).await.unwrap()[0].num_rows(), 2);
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert_eq!(fetch(&mut client, info).await.unwrap()[0].num_rows(), 19);

    let keys = CommandGetPrimaryKeys { catalog: None, db_schema: None, table: "orders".to_owned() };
    let info = client.get_primary_keys(keys).await.unwrap();
    assert_eq!(info.clone().try_decode_schema().unwrap().fields().len(), 6);
    assert_eq!(fetch(&mut client, info).await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    let keys = CommandGetExportedKeys { catalog: None, db_schema: None, table: "orders".to_owned() };
    let info = client.get_exported_keys(keys).await.unwrap();
    assert_eq!(info.try_decode_schema().unwrap().fields().len(), 13);
}

#[tokio::test]
async fn errors_arrive_whole() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    client.execute_update("CREATE TABLE t (user_id INT)".to_owned(), None).await.unwrap();
    let (code, error) = ours(query(&mut client, "SELECT usr_id FROM t").await.unwrap_err());
    assert_eq!((code, error.code), (tonic::Code::InvalidArgument, Code::UnknownColumn));
    assert_eq!(error.hint.as_deref(), Some("did you mean `user_id`?"));
    let (_, error) = ours(query(&mut client, "SELEC 1").await.unwrap_err());
    assert_eq!(error.code, Code::Syntax);
    // One that comes in the middle of a result.
    let failing = "SELECT 1000 / (value - 500000) FROM generate_series(1, 1000000)";
    let (_, error) = ours(query(&mut client, failing).await.unwrap_err());
    assert_eq!(error.code, Code::BadData);
    assert!(error.message.to_lowercase().contains("divide by zero"), "{error}");
}

#[tokio::test]
async fn a_password_is_asked_for() {
    let served = Served::start(secret()).await;
    let mut client = served.client().await;
    let (code, error) = ours(query(&mut client, "SELECT 1").await.unwrap_err());
    assert_eq!((code, error.code), (tonic::Code::Unauthenticated, Code::Unauthenticated));
    let refused = client.handshake("ann", "wrong").await.unwrap_err().to_string();
    assert!(refused.contains("TM-1010"), "{refused}");
    assert!(query(&mut client, "SELECT 1").await.is_err());

    client.handshake("ann", "secret").await.unwrap();
    assert_eq!(query(&mut client, "SELECT 1").await.unwrap()[0].num_rows(), 1);
    client.set_token("stolen".to_owned());
    assert!(query(&mut client, "SELECT 1").await.is_err());

    let mut basic = served.client().await;
    basic.set_header("authorization", "Basic YW5uOnNlY3JldA==");
    assert_eq!(query(&mut basic, "SELECT 1").await.unwrap()[0].num_rows(), 1);
}

#[tokio::test]
async fn a_running_query_can_be_watched_and_cancelled() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let endless = "SELECT value FROM generate_series(1, 1000000000000)".to_owned();
    let info = client.execute(endless, None).await.unwrap();
    let note: JobNote = serde_json::from_slice(&info.app_metadata).unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    stream.next().await.unwrap().unwrap();

    let action = Action::new(PROGRESS_ACTION, note.job.as_str().to_owned());
    let told = client.do_action(action).await.unwrap().message().await.unwrap().unwrap();
    let progress: tidemill_engine::Progress = serde_json::from_slice(&told.body).unwrap();
    assert!(progress.rows > 0);

    let body = CancelFlightInfoRequest::new(info.clone()).encode_to_vec();
    let mut results = client.do_action(Action::new("CancelFlightInfo", body.clone())).await.unwrap();
    assert!(results.message().await.unwrap().is_some());
    let error = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the stream ended as if it were complete"),
        }
    };
    assert_eq!(ours(error).1.code, Code::Cancelled);
    eventually(|| served.frontend.running_jobs() == 0).await;
    let again = client.do_action(Action::new("CancelFlightInfo", body)).await.unwrap_err();
    assert_eq!(ours(again).1.code, Code::UnknownObject);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_query_and_its_session() {
    let served = Served::start(Credentials::default()).await;
    let mut staying = served.client().await;
    query(&mut staying, "SET datafusion.execution.batch_size = 77").await.unwrap();
    let mut leaving = served.client().await;
    let size =
        "SELECT value FROM information_schema.df_settings WHERE name = 'datafusion.execution.batch_size'";
    assert!(text(&mut staying, size).await.contains("| 77 "));
    assert!(!text(&mut leaving, size).await.contains("| 77 "));
    let endless = "SELECT value FROM generate_series(1, 1000000000000)".to_owned();
    let info = leaving.execute(endless, None).await.unwrap();
    let mut stream = leaving.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!((served.frontend.open_sessions(), served.frontend.running_jobs()), (2, 1));
    drop(stream);
    drop(leaving);
    eventually(|| served.frontend.open_sessions() == 1 && served.frontend.running_jobs() == 0).await;
    assert!(text(&mut staying, size).await.contains("| 77 "));
}
