//! What there is to say about jobs: of submissions, and of single jobs from `tidemill.jobs`.

use super::super::sql::{Outcome, once};
use super::super::{App, Caller, Failure};
use super::{JobError, JobView, StatementView, Status, Submission};
use axum::extract::{Query, State};
use axum::{Extension, Json};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tidemill_core::{JobId, Result};
use tidemill_engine::Progress;
use utoipa::{IntoParams, ToSchema};

const LIMIT: usize = 1_000;
/// Nothing is done before its end.
const ALMOST: f64 = 0.99;

/// Which jobs are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct Filter {
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    status: Option<String>,
    user: Option<String>,
    engine: Option<String>,
    /// At most 1000.
    limit: Option<usize>,
}

/// Everything that is known.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct Listing {
    /// What this user submitted here, for an administrator what everybody did; newest first.
    submitted: Vec<JobView>,
    /// Rows of `tidemill.jobs`: each statement, however it came.
    #[schema(value_type = Vec<Object>)]
    jobs: Box<serde_json::value::RawValue>,
}

/// A row of `tidemill.jobs`, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Row {
    user: String,
    sql: String,
    status: String,
    queued_at: Option<Time>,
    started_at: Option<Time>,
    finished_at: Option<Time>,
    rows: u64,
    stages: u32,
    stages_done: u32,
    tasks: u32,
    tasks_done: u32,
    rows_read: u64,
    bytes_read: u64,
    expected_bytes: Option<u64>,
    error_code: Option<String>,
    error: Option<String>,
}

type Time = DateTime<Utc>;

/// Lists submissions and jobs.
#[utoipa::path(
    get, path = "/v1/jobs", tag = "jobs", params(Filter),
    responses((status = 200, body = Listing))
)]
pub(in super::super) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Query(filter): Query<Filter>,
) -> Result<Json<Listing>, Failure> {
    let limit = filter.limit.unwrap_or(LIMIT).min(LIMIT);
    let mut sql = "SELECT * FROM tidemill.jobs WHERE true".to_owned();
    let wanted = [("status", &filter.status), ("user", &filter.user), ("engine", &filter.engine)];
    for (column, value) in wanted {
        if let Some(value) = value {
            sql.push_str(&format!(" AND \"{column}\" = {}", quoted(value)));
        }
    }
    let jobs = once(&app, &caller, &sql, limit).await?.rows;
    let mut submitted = Vec::new();
    for submission in app.submissions.of(super::of(&app, &caller)) {
        let view = view(&app, &submission).await;
        let status = serde_json::to_value(view.status).unwrap_or_default();
        if filter.status.as_ref().is_none_or(|wanted| status == wanted.as_str()) && submitted.len() < limit {
            submitted.push(view);
        }
    }
    Ok(Json(Listing { submitted, jobs }))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A job that came another way.
pub(super) async fn single(app: &App, caller: &Caller, id: &str) -> Result<Option<JobView>> {
    let Some(row) = row(app, caller, id).await? else { return Ok(None) };
    let status = match row.status.as_str() {
        "queued" => Status::Queued,
        "running" => Status::Running,
        "done" => Status::Done,
        "cancelled" => Status::Cancelled,
        _ => Status::Failed,
    };
    let progress = if status == Status::Done { 1.0 } else { row.share() };
    let error = row.error.clone().map(|message| JobError {
        code: row.error_code.clone().unwrap_or_default(),
        message,
        hint: None,
    });
    Ok(Some(JobView {
        id: id.to_owned(),
        user: row.user.clone(),
        status,
        progress,
        seconds_left: seconds_left(status, row.started_at, progress),
        statements: vec![StatementView {
            sql: row.sql.clone(),
            job: Some(id.to_owned()),
            status,
            rows: row.rows,
        }],
        submitted_at: row.queued_at.unwrap_or_default(),
        started_at: row.started_at,
        finished_at: row.finished_at,
        error,
    }))
}

pub(super) async fn view(app: &App, submission: &Submission) -> JobView {
    let (status, statements, started_at, finished_at) = {
        let state = submission.state.lock();
        (state.status, state.statements.clone(), state.started_at, state.finished_at)
    };
    let done = statements.iter().filter(|one| one.status == Status::Done).count() as f64;
    let running = statements.iter().find(|one| one.status == Status::Running);
    let share = match running.and_then(|one| one.job.as_ref()) {
        Some(job) => {
            let caller = Caller(submission.user.clone());
            let row = row(app, &caller, job).await.ok().flatten();
            match row {
                Some(row) => row.share(),
                None => app.frontend.progress(&JobId::new(job)).await.map_or(0.0, |now| share(&now, None)),
            }
        }
        None => 0.0,
    };
    let progress = match status {
        Status::Done => 1.0,
        _ => (done + share) / statements.len() as f64,
    };
    JobView {
        id: submission.id.clone(),
        user: submission.user.clone(),
        status,
        progress,
        seconds_left: seconds_left(status, started_at, progress),
        statements,
        submitted_at: submission.submitted_at,
        started_at,
        finished_at,
        error: submission.error(),
    }
}

async fn row(app: &App, caller: &Caller, id: &str) -> Result<Option<Row>> {
    let sql = format!("SELECT * FROM tidemill.jobs WHERE id = {}", quoted(id));
    let Outcome { rows, .. } = once(app, caller, &sql, 1).await?;
    let rows: Vec<Row> = serde_json::from_str(rows.get())?;
    Ok(rows.into_iter().next())
}

impl Row {
    fn share(&self) -> f64 {
        let progress = Progress {
            stages: self.stages,
            stages_done: self.stages_done,
            tasks: self.tasks,
            tasks_done: self.tasks_done,
            rows: self.rows_read,
            bytes: self.bytes_read,
            ..Progress::default()
        };
        share(&progress, self.expected_bytes)
    }
}

/// How much is done, by whatever says most: tasks, stages, or bytes.
fn share(progress: &Progress, expected_bytes: Option<u64>) -> f64 {
    let part = |done: f64, all: f64| if all > 0.0 { done / all } else { 0.0 };
    let bytes = expected_bytes.map_or(0.0, |all| part(progress.bytes as f64, all as f64));
    let tasks = part(progress.tasks_done.into(), progress.tasks.into());
    let stages = part(progress.stages_done.into(), progress.stages.into());
    bytes.max(tasks).max(stages).min(ALMOST)
}

fn seconds_left(status: Status, started_at: Option<Time>, progress: f64) -> Option<f64> {
    let started_at = started_at.filter(|_| status == Status::Running && progress > 0.02)?;
    let elapsed = (Utc::now() - started_at).as_seconds_f64();
    Some(elapsed * (1.0 - progress) / progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_what_says_most_and_never_all() {
        let progress = Progress { stages: 4, stages_done: 1, bytes: 60, ..Progress::default() };
        assert_eq!(share(&progress, None), 0.25);
        assert_eq!(share(&progress, Some(100)), 0.6);
        assert_eq!(share(&progress, Some(50)), ALMOST);
    }

    #[test]
    fn the_time_left_follows_from_the_time_so_far() {
        let started = Utc::now() - chrono::Duration::seconds(10);
        let left = seconds_left(Status::Running, Some(started), 0.25).unwrap();
        assert!((29.0..32.0).contains(&left), "{left}");
        assert_eq!(seconds_left(Status::Running, Some(started), 0.0), None);
        assert_eq!(seconds_left(Status::Done, Some(started), 1.0), None);
    }
}
