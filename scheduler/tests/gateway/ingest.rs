use super::Served;
use super::flight::{Client, ours, text};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use std::sync::Arc;
use tidemill_core::Code;
use tidemill_scheduler::gateway::Credentials;

fn rows(first: i64, count: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + count));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|n| format!("w{n}"))));
    RecordBatch::try_from_iter([("n", numbers), ("w", words)]).unwrap()
}

fn command(exists: TableExistsOption) -> CommandStatementIngest {
    let options =
        TableDefinitionOptions { if_not_exist: TableNotExistOption::Create.into(), if_exists: exists.into() };
    CommandStatementIngest {
        table_definition_options: Some(options),
        table: "t".to_owned(),
        ..CommandStatementIngest::default()
    }
}

async fn send(
    client: &mut Client,
    command: CommandStatementIngest,
    batches: Vec<RecordBatch>,
) -> Result<i64, FlightError> {
    client.execute_ingest(command, futures::stream::iter(batches.into_iter().map(Ok))).await
}

#[tokio::test]
async fn rows_come_as_a_stream_and_are_counted() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let batches = (0..20).map(|n| rows(n * 1000, 1000)).collect();
    assert_eq!(send(&mut client, command(TableExistsOption::Fail), batches).await.unwrap(), 20_000);
    let append = command(TableExistsOption::Append);
    assert_eq!(send(&mut client, append, vec![rows(0, 5)]).await.unwrap(), 5);
    assert!(text(&mut client, "SELECT count(*) AS c FROM t").await.contains("| 20005 |"));
    let again = send(&mut client, command(TableExistsOption::Fail), vec![rows(0, 1)]).await;
    assert_eq!(ours(again.unwrap_err()).1.code, Code::AlreadyExists);
}

#[tokio::test]
async fn what_is_not_done_is_refused() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let mut code = async |change: fn(&mut CommandStatementIngest)| {
        let mut command = command(TableExistsOption::Append);
        change(&mut command);
        ours(send(&mut client, command, vec![rows(0, 1)]).await.unwrap_err()).1.code
    };
    assert_eq!(code(|command| command.temporary = true).await, Code::Unsupported);
    assert_eq!(code(|command| command.transaction_id = Some("x".into())).await, Code::Unsupported);
    let option = |command: &mut CommandStatementIngest| {
        command.options.insert("x".to_owned(), "y".to_owned());
    };
    assert_eq!(code(option).await, Code::BadOption);
    let neither = |command: &mut CommandStatementIngest| {
        command.table_definition_options = Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail.into(),
            if_exists: TableExistsOption::Fail.into(),
        });
    };
    assert_eq!(code(neither).await, Code::InvalidStatement);
}
