use super::flight::{Client, fetch, ours};
use super::{Served, eventually};
use arrow::array::{Array, RecordBatch, StringArray};
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightDescriptor, PollInfo, RenewFlightEndpointRequest};
use futures::StreamExt;
use prost::Message;
use tidemill_core::Code;
use tidemill_scheduler::gateway::{Credentials, to_error};

fn statement(sql: &str) -> FlightDescriptor {
    let query = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
    FlightDescriptor::new_cmd(query.as_any().encode_to_vec())
}

async fn poll(client: &mut Client, descriptor: FlightDescriptor) -> Result<PollInfo, tonic::Status> {
    Ok(client.inner_mut().poll_flight_info(descriptor).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_polled_until_it_can_be_fetched() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    // Sorting keeps the first row back until all are read.
    let sql = "SELECT value FROM generate_series(1, 2000000) ORDER BY value % 1000 DESC, value LIMIT 3";
    let mut polled = poll(&mut client, statement(sql)).await.unwrap();
    while let Some(again) = polled.flight_descriptor.take() {
        assert!((0.0..1.0).contains(&polled.progress.unwrap()));
        assert!(polled.info.unwrap().endpoint.is_empty());
        polled = poll(&mut client, again).await.unwrap();
    }
    assert_eq!(polled.progress, Some(1.0));
    let info = polled.info.unwrap();
    let renew = RenewFlightEndpointRequest::new(info.endpoint[0].clone()).encode_to_vec();
    let mut renewed = client.do_action(Action::new("RenewFlightEndpoint", renew.clone())).await.unwrap();
    assert!(renewed.message().await.unwrap().is_some());
    let rows = fetch(&mut client, info).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    let gone = client.do_action(Action::new("RenewFlightEndpoint", renew)).await.unwrap_err();
    assert_eq!(ours(gone).1.code, Code::UnknownObject);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polled_statement_fails_and_is_cancelled() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let failing = statement("SELECT sum(1000 / (value - 500)) FROM generate_series(1, 1000)");
    let mut failed = poll(&mut client, failing).await;
    while let Ok(PollInfo { flight_descriptor: Some(again), .. }) = failed {
        failed = poll(&mut client, again).await;
    }
    assert_eq!(to_error(&failed.unwrap_err()).code, Code::BadData);

    let endless = statement("SELECT count(*) FROM generate_series(1, 1000000000000)");
    let polled = poll(&mut client, endless).await.unwrap();
    let again = polled.flight_descriptor.unwrap();
    let body = CancelFlightInfoRequest::new(polled.info.unwrap()).encode_to_vec();
    client.do_action(Action::new("CancelFlightInfo", body)).await.unwrap();
    eventually(|| served.frontend.running_jobs() == 0).await;
    let error = to_error(&poll(&mut client, again).await.unwrap_err());
    assert!(matches!(error.code, Code::Cancelled | Code::UnknownObject), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_rows_fit_into_small_messages() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let sql = "SELECT repeat('x', CASE WHEN value <= 8 THEN 3000000 ELSE 1 END) AS wide \
               FROM generate_series(1, 4000)";
    let info = client.execute(sql.to_owned(), None).await.unwrap();
    // This client takes 4 MiB a message.
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let (mut count, mut bytes) = (0, 0);
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap();
        let wide = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
        count += wide.len();
        bytes += wide.iter().flatten().map(str::len).sum::<usize>();
    }
    assert_eq!((count, bytes), (4000, 8 * 3_000_000 + 3992));
}
