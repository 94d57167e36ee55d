use super::Served;
use super::flight::{Client, ours, query, text};
use arrow_flight::Action;
use prost::Message;
use std::collections::HashMap;
use tidemill_core::Code;
use tidemill_scheduler::gateway::Credentials;

// The messages of Flight.proto as another client would write them.

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(sfixed64, optional, tag = "3")]
    integer: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Refused {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, Reason>,
}

#[derive(Clone, PartialEq, Message)]
struct Reason {
    #[prost(int32, tag = "1")]
    value: i32,
}

async fn act(client: &mut Client, name: &str, body: Vec<u8>) -> bytes::Bytes {
    let mut results = client.do_action(Action::new(name, body)).await.unwrap();
    results.message().await.unwrap().unwrap().body
}

async fn set<const N: usize>(client: &mut Client, options: [(&str, Value); N]) -> HashMap<String, i32> {
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let body = act(client, "SetSessionOptions", Options { options }.encode_to_vec()).await;
    let errors = Refused::decode(body).unwrap().errors;
    errors.into_iter().map(|(name, reason)| (name, reason.value)).collect()
}

fn of_text(text: &str) -> Value {
    Value { text: Some(text.to_owned()), ..Value::default() }
}

const BATCH_SIZE: &str = "datafusion.execution.batch_size";

#[tokio::test]
async fn options_are_set_and_given_back() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    let size = Value { integer: Some(77), ..Value::default() };
    assert!(set(&mut client, [(BATCH_SIZE, size), ("catalog", of_text("datafusion"))]).await.is_empty());
    let body = act(&mut client, "GetSessionOptions", Vec::new()).await;
    let options = Options::decode(body).unwrap().options;
    assert_eq!(options[BATCH_SIZE].text.as_deref(), Some("77"));
    assert_eq!(options["catalog"].text.as_deref(), Some("datafusion"));
    let refused = set(&mut client, [("catalog", of_text("other")), ("no name", of_text("1"))]).await;
    assert_eq!(refused, HashMap::from([("catalog".to_owned(), 2), ("no name".to_owned(), 1)]));
}

#[tokio::test]
async fn a_closed_session_begins_anew() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    query(&mut client, &format!("SET {BATCH_SIZE} = 77")).await.unwrap();
    let shown = format!("SELECT value FROM information_schema.df_settings WHERE name = '{BATCH_SIZE}'");
    assert!(text(&mut client, &shown).await.contains("| 77 "));
    act(&mut client, "CloseSession", Vec::new()).await;
    assert!(!text(&mut client, &shown).await.contains("| 77 "));
}

#[tokio::test]
async fn headers_set_what_a_url_asks_for() {
    let served = Served::start(Credentials::default()).await;
    let mut client = served.client().await;
    client.set_header("catalog", "datafusion");
    query(&mut client, "SELECT 1").await.unwrap();
    client.set_header("catalog", "other");
    let (_, error) = ours(query(&mut client, "SELECT 1").await.unwrap_err());
    assert_eq!(error.code, Code::UnknownObject);
    assert!(error.to_string().contains("no catalog `other`"), "{error}");
}
