use super::frontend::PlainFrontend;
use super::secret;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use std::sync::Arc;
use tidemill_core::config::{Auth, User};
use tidemill_scheduler::gateway::{Credentials, http};
use tokio::net::TcpListener;

async fn serve(credentials: Credentials) -> (String, Arc<PlainFrontend>) {
    let frontend = Arc::new(PlainFrontend::default());
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let router = http::router(Arc::clone(&frontend) as _, credentials, metrics);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, frontend)
}

async fn sql(url: &str, body: Value) -> (u16, Value) {
    let response = reqwest::Client::new().post(format!("{url}/v1/sql")).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn statements_answer_with_json() {
    let (url, frontend) = serve(Credentials::default()).await;
    let (status, body) = sql(&url, json!({ "sql": "SELECT 1 AS n, NULL AS nothing" })).await;
    assert_eq!(status, 200);
    assert_eq!(body["rows"], json!([{ "n": 1, "nothing": null }]));
    assert_eq!(body["columns"][0], json!({ "name": "n", "type": "Int64" }));
    assert_eq!((&body["engine"], &body["truncated"]), (&json!("in_process"), &json!(false)));

    let many = json!({ "sql": "SELECT value FROM generate_series(1, 1000000000000)", "limit": 5 });
    let (_, body) = sql(&url, many).await;
    assert_eq!((&body["row_count"], &body["truncated"]), (&json!(5), &json!(true)));
    assert_eq!((frontend.open_sessions(), frontend.running_jobs()), (0, 0));
}

#[tokio::test]
async fn errors_have_their_code_and_their_status() {
    let (url, _) = serve(Credentials::default()).await;
    let (status, body) = sql(&url, json!({ "sql": "SELECT * FROM missing" })).await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("TM-1003")));
    let (status, body) = sql(&url, json!({ "sql": "SELEC" })).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("TM-1001")));
    let cancelled = reqwest::Client::new().delete(format!("{url}/v1/jobs/none")).send().await.unwrap();
    assert_eq!(cancelled.status(), 404);
}

#[tokio::test]
async fn the_password_guards_all_but_health_and_metrics() {
    let (url, _) = serve(secret()).await;
    let client = reqwest::Client::new();
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(client.get(format!("{url}{open}")).send().await.unwrap().status(), 200, "{open}");
    }
    let refused = client.get(&url).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    let page = client.get(&url).basic_auth("ann", Some("secret")).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("<title>Tidemill</title>"));
    assert_eq!(client.get(&url).basic_auth("ann", Some("no")).send().await.unwrap().status(), 401);
}

/// Looks at a job until it is `status`.
async fn until(url: &str, id: &str, status: &str) -> Value {
    for _ in 0..1_000 {
        let job: Value = reqwest::get(format!("{url}/v1/jobs/{id}")).await.unwrap().json().await.unwrap();
        if job["status"] == status {
            return job;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the job is never {status}");
}

async fn submit(url: &str, body: Value) -> (u16, Value) {
    let response = reqwest::Client::new().post(format!("{url}/v1/jobs")).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn submitted_statements_run_by_themselves_and_keep_their_result() {
    let (url, frontend) = serve(Credentials::default()).await;
    let two = json!({ "sql": "CREATE TABLE t AS SELECT 1 AS n; -- then\nSELECT n, 'a;b' AS word FROM t" });
    let (status, job) = submit(&url, two).await;
    let id = job["id"].as_str().unwrap();
    assert_eq!((status, job["statements"].as_array().unwrap().len()), (202, 2));

    let job = until(&url, id, "done").await;
    assert_eq!((&job["progress"], &job["statements"][1]["rows"]), (&json!(1.0), &json!(1)));
    let result = format!("{url}/v1/jobs/{id}/result");
    let rows: Value = reqwest::get(&result).await.unwrap().json().await.unwrap();
    assert_eq!(rows, json!([{ "n": 1, "word": "a;b" }]));
    let csv = reqwest::Client::new().get(&result).header("accept", "text/csv").send().await.unwrap();
    assert_eq!(csv.headers()["content-type"], "text/csv");
    assert_eq!(csv.text().await.unwrap(), "n,word\n1,a;b\n");
    assert_eq!(frontend.running_jobs(), 0);
}

#[tokio::test]
async fn a_statement_is_cancelled_only_by_its_user_or_an_administrator() {
    let user =
        |name: &str| User { name: name.to_owned(), password: Some(format!("{name}'s")), ..User::default() };
    let boss = User { admin: true, ..user("boss") };
    let auth = Auth { users: vec![user("ann"), user("bob"), boss], ..Auth::default() };
    let (url, frontend) = serve(Credentials::new(&auth).unwrap()).await;
    let client = reqwest::Client::new();
    let endless = json!({ "sql": "SELECT count(*) FROM generate_series(1, 1000000000000)" });
    let submitted = client.post(format!("{url}/v1/jobs")).basic_auth("ann", Some("ann's")).json(&endless);
    let submission: Value = submitted.send().await.unwrap().json().await.unwrap();
    let address = format!("{url}/v1/jobs/{}", submission["id"].as_str().unwrap());
    let mut statement = None;
    for _ in 0..1_000 {
        let shown = client.get(&address).basic_auth("ann", Some("ann's")).send().await.unwrap();
        let shown: Value = shown.json().await.unwrap();
        statement = shown["statements"][0]["job"].as_str().map(|job| format!("{url}/v1/jobs/{job}"));
        if statement.is_some() && frontend.running_jobs() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let statement = statement.unwrap();
    for theirs in [&address, &statement] {
        let refused = client.delete(theirs).basic_auth("bob", Some("bob's")).send().await.unwrap();
        assert_eq!(refused.status(), 404);
    }
    assert_eq!(frontend.running_jobs(), 1);
    let ended = client.delete(&statement).basic_auth("ann", Some("ann's")).send().await.unwrap();
    assert_eq!(ended.status(), 204);

    let submitted = client.post(format!("{url}/v1/jobs")).basic_auth("ann", Some("ann's")).json(&endless);
    let submission: Value = submitted.send().await.unwrap().json().await.unwrap();
    let address = format!("{url}/v1/jobs/{}", submission["id"].as_str().unwrap());
    let boss = |call: reqwest::RequestBuilder| call.basic_auth("boss", Some("boss's")).send();
    let shown: Value = boss(client.get(&address)).await.unwrap().json().await.unwrap();
    assert_eq!(shown["user"], "ann");
    let result = boss(client.get(format!("{address}/result"))).await.unwrap();
    assert_eq!(result.status(), 404, "results are for who submitted them");
    assert_eq!(boss(client.delete(&address)).await.unwrap().status(), 204);
}

#[tokio::test]
async fn submitted_statements_can_be_cancelled_and_say_why_they_failed() {
    let (url, frontend) = serve(Credentials::default()).await;
    let endless = json!({ "sql": "SELECT count(*) FROM generate_series(1, 1000000000000)" });
    let (_, job) = submit(&url, endless).await;
    let address = format!("{url}/v1/jobs/{}", job["id"].as_str().unwrap());
    until(&url, job["id"].as_str().unwrap(), "running").await;
    let early = reqwest::get(format!("{address}/result")).await.unwrap();
    assert_eq!(early.status(), 409);
    let client = reqwest::Client::new();
    assert_eq!(client.delete(&address).send().await.unwrap().status(), 204);
    until(&url, job["id"].as_str().unwrap(), "cancelled").await;
    assert_eq!(frontend.running_jobs(), 0);
    assert_eq!(client.delete(&address).send().await.unwrap().status(), 404);

    let (_, job) = submit(&url, json!({ "sql": "SELECT * FROM missing; SELECT 1" })).await;
    let job = until(&url, job["id"].as_str().unwrap(), "failed").await;
    assert_eq!(job["error"]["code"], "TM-1003");
    assert_eq!(job["statements"][1]["status"], "cancelled");

    let (status, _) = submit(&url, json!({ "sql": " ; " })).await;
    assert_eq!(status, 400);
    assert_eq!(reqwest::get(format!("{url}/v1/jobs/none/result")).await.unwrap().status(), 404);
    let described: Value =
        reqwest::get(format!("{url}/v1/openapi.json")).await.unwrap().json().await.unwrap();
    assert!(described["paths"]["/v1/jobs"]["post"].is_object());
}
