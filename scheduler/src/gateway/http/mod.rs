//! HTTP: statements with small results, jobs, health, metrics, and the web page.
//!
//! ```text
//! GET  /                        the web page
//! POST /v1/sql                  {sql, session?, limit?} → rows as JSON
//! /v1/jobs                      statements that run on after the request: see `jobs`
//! GET  /v1/jobs/{id}/progress   how far a running job is
//! GET  /v1/openapi.json         what `/v1/jobs` takes and gives
//! GET  /healthz /readyz /metrics
//! ```

mod jobs;
mod sql;

use super::auth::{ANONYMOUS, Authorization, Credentials, parse, unauthenticated};
use crate::frontend::api::Frontend;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use std::sync::Arc;
use tidemill_core::{Code, Error, JobId, Result};
use tidemill_engine::Progress;

const PAGE: &str = include_str!("page.html");

#[derive(Clone)]
struct App {
    frontend: Arc<dyn Frontend>,
    credentials: Credentials,
    metrics: PrometheusHandle,
    submissions: Arc<jobs::Submissions>,
}

/// The caller's name, as the credentials gave it.
#[derive(Clone, Debug)]
struct Caller(String);

/// All routes that clients use. Health and metrics need no password; everything else does when one is set.
pub fn router(frontend: Arc<dyn Frontend>, credentials: Credentials, metrics: PrometheusHandle) -> Router {
    let app = App { frontend, credentials, metrics, submissions: Arc::default() };
    let guarded = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/v1/sql", post(sql::run))
        .route("/v1/jobs", get(jobs::list).post(jobs::submit))
        .route("/v1/jobs/{id}/progress", get(progress))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/v1/jobs/{id}/result", get(jobs::result))
        .route("/v1/openapi.json", get(jobs::openapi))
        .layer(from_fn_with_state(app.clone(), guard));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State(app): State<App>| app.metrics.render()))
        .merge(guarded)
        .with_state(app)
}

/// An error as a response: `{"error": {code, message, hint, context}}`.
#[derive(Debug)]
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(error) = self;
        metrics::counter!("tidemill_gateway_errors_total", "code" => error.code.to_string()).increment(1);
        let body = serde_json::json!({ "error": {
            "code": error.code.to_string(),
            "message": error.message,
            "hint": error.hint,
            "context": error.context,
        }});
        let mut response = (status(error.code), Json(body)).into_response();
        if error.code == Code::Unauthenticated {
            let challenge = HeaderValue::from_static("Basic realm=\"tidemill\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

fn status(code: Code) -> StatusCode {
    use tidemill_core::Blame;
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::AccessDenied => StatusCode::FORBIDDEN,
        Code::UnknownObject | Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Conflict => StatusCode::CONFLICT,
        Code::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Code::NoExecutors | Code::TooManyJobs => StatusCode::SERVICE_UNAVAILABLE,
        other => match other.blame() {
            Blame::User => StatusCode::BAD_REQUEST,
            Blame::External => StatusCode::BAD_GATEWAY,
            Blame::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match admit(&app.credentials, header) {
        Ok(user) => {
            request.extensions_mut().insert(Caller(user));
            next.run(request).await
        }
        Err(error) => Failure(error).into_response(),
    }
}

/// Tokens of the configuration count here; those of handshakes belong to Flight SQL sessions.
fn admit(credentials: &Credentials, header: Option<&str>) -> Result<String> {
    match parse(header)? {
        Authorization::Basic { user, password } => credentials.check(&user, &password).map(|()| user),
        Authorization::Bearer(token) => match credentials.user_of_token(token)? {
            Some(user) => Ok(user),
            None if credentials.required() => Err(unauthenticated("the bearer token is not known here")),
            None => Ok(ANONYMOUS.to_owned()),
        },
        Authorization::Missing if credentials.required() => {
            Err(unauthenticated("user and password, or a bearer token, are missing"))
        }
        _ => Ok(ANONYMOUS.to_owned()),
    }
}

async fn ready(State(app): State<App>) -> Response {
    match app.frontend.ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn progress(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Progress>, Failure> {
    let job = JobId::new(id);
    let progress = app.frontend.progress(&job).await;
    Ok(Json(progress.ok_or_else(|| not_running(&job))?))
}

fn not_running(job: &JobId) -> Error {
    Error::new(Code::UnknownObject, format!("the job `{job}` is not running"))
        .hint("GET /v1/jobs lists the jobs")
}
