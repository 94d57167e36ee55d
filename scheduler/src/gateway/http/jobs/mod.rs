//! `/v1/jobs`: statements that run on after the request, are looked at, cancelled, and fetched when they are done.
//!
//! ```text
//! POST   /v1/jobs              {sql, engine?, priority?, schema?, timeout?} → 202 with the job
//! GET    /v1/jobs              submitted here, and tidemill.jobs: ?status= &user= &engine= &limit=
//! GET    /v1/jobs/{id}         status, progress 0..1, time left
//! DELETE /v1/jobs/{id}         cancels it
//! GET    /v1/jobs/{id}/result  JSON, CSV or Arrow, by Accept
//! GET    /v1/openapi.json
//! ```
//! An id is that of a submission or of a single job in `tidemill.jobs`.

mod list;
mod openapi;
mod results;
mod run;
mod submissions;

pub(super) use list::list;
pub(super) use openapi::openapi;
pub(super) use results::result;
pub(super) use run::submit;
pub(super) use submissions::Submissions;

use super::{App, Caller, Failure};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use submissions::Submission;
use tidemill_core::{Code, Error, JobId};
use utoipa::ToSchema;

/// What is to be run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Submit {
    /// One statement, or several with `;` between them, which run one after the other.
    #[schema(example = "SELECT count(*) FROM events")]
    sql: String,
    /// `auto`, `in_process`, `pipelined` or `staged`.
    engine: Option<String>,
    /// `low`, `normal` or `high`.
    priority: Option<String>,
    /// Schema of names that are written without one.
    schema: Option<String>,
    /// Most time for each statement, such as `5 min`.
    timeout: Option<String>,
    /// Memory for each statement, such as `2 GiB`.
    memory_limit: Option<String>,
}

/// `queued` until the first statement runs; then `running`, and `done`, `failed` or `cancelled` at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct JobError {
    #[schema(example = "TM-1003")]
    code: String,
    message: String,
    hint: Option<String>,
}

impl From<&Error> for JobError {
    fn from(error: &Error) -> Self {
        Self { code: error.code.to_string(), message: error.message.clone(), hint: error.hint.clone() }
    }
}

/// One statement of a submission.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct StatementView {
    sql: String,
    /// Its id in `tidemill.jobs`, once it has begun.
    job: Option<String>,
    status: Status,
    /// Rows of its answer, or rows that it wrote.
    rows: u64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct JobView {
    id: String,
    user: String,
    status: Status,
    /// From 0 to 1, as far as it is known.
    progress: f64,
    /// An estimate from the progress so far.
    seconds_left: Option<f64>,
    statements: Vec<StatementView>,
    #[schema(value_type = String, format = DateTime)]
    submitted_at: chrono::DateTime<chrono::Utc>,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<chrono::DateTime<chrono::Utc>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<chrono::DateTime<chrono::Utc>>,
    error: Option<JobError>,
}

/// Shows one job.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "of a submission, or of a job in tidemill.jobs")),
    responses((status = 200, body = JobView), (status = 404, description = "no such job"))
)]
pub(super) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Failure> {
    match app.submissions.find(&id, of(&app, &caller)) {
        Some(submission) => Ok(Json(list::view(&app, &submission).await)),
        None => Ok(Json(list::single(&app, &caller, &id).await?.ok_or_else(|| no_job(&id))?)),
    }
}

/// Cancels a job that waits or runs: one of the caller's, or anybody's for an administrator.
#[utoipa::path(
    delete, path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "of a submission, or of a job in tidemill.jobs")),
    responses((status = 204, description = "it ends now"), (status = 404, description = "no such job runs that the caller may cancel"))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    let found = app.submissions.find(&id, of(&app, &caller));
    let submitted = found.is_some_and(|submission| submission.cancel());
    let job = JobId::new(id);
    if submitted || app.frontend.cancel(&job, app.credentials.owner(&caller.0)).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let hint =
        "GET /v1/jobs lists the jobs; a job is cancelled by the user who runs it, or by an administrator";
    Err(Failure(super::not_running(&job).hint(hint)))
}

/// Whose submissions the caller sees and ends: `None` is everybody's. Results are only for who submitted them.
fn of<'a>(app: &App, caller: &'a Caller) -> Option<&'a str> {
    (!app.credentials.administers(&caller.0)).then_some(caller.0.as_str())
}

fn no_job(id: &str) -> Error {
    Error::new(Code::UnknownObject, format!("no job `{id}`")).hint("GET /v1/jobs lists the jobs")
}
