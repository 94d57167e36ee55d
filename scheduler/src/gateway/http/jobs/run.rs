//! Runs what was submitted, one statement after the other, whether anybody looks or not.

use super::super::{App, Caller, Failure};
use super::submissions::{RESULT_BYTES, Rows};
use super::{JobView, Status, Submission, Submit, list};
use crate::frontend::api::{AnswerKind, Frontend, SessionId};
use crate::gateway::opened::Opened;
use arrow::array::UInt64Array;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::{Extension, Json};
use futures::StreamExt;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::from_datafusion;

/// Takes statements to run; the answer comes at once.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", request_body = Submit,
    responses(
        (status = 202, body = JobView, description = "it runs as soon as its turn comes; `Location` is its address"),
        (status = 400, description = "no statement, or an option that is not known")
    )
)]
pub(in super::super) async fn submit(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Json(submit): Json<Submit>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<JobView>), Failure> {
    let statements: Vec<String> = tidemill_sql::split(&submit.sql).into_iter().map(|(_, sql)| sql).collect();
    if statements.is_empty() {
        return Err(Failure(Error::new(Code::InvalidStatement, "there is no statement in `sql`")));
    }
    let session = Opened::new(app.frontend.clone(), &caller.0).await?;
    configure(app.frontend.as_ref(), &session.id, &submit).await?;
    let submission = Submission::new(&caller.0, statements);
    app.submissions.keep(&submission);
    let (running, worker) = (submission.clone(), app.clone());
    tokio::spawn(async move {
        let cancelled = || Error::new(Code::Cancelled, format!("job {} was cancelled", running.id));
        let cancel = running.cancel.clone();
        // Dropping the work drops the answer's stream, which ends its job.
        let outcome =
            match cancel.run_until_cancelled(run(worker.frontend.as_ref(), &session.id, &running)).await {
                Some(outcome) => outcome,
                None => Err(cancelled()),
            };
        running.end(outcome);
        worker.submissions.make_room();
    });
    let place = format!("/v1/jobs/{}", submission.id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(list::view(&app, &submission).await)))
}

/// The options are variables of a session that only these statements have.
async fn configure(frontend: &dyn Frontend, session: &SessionId, submit: &Submit) -> Result<()> {
    for (name, value) in [
        ("engine", &submit.engine),
        ("priority", &submit.priority),
        ("schema", &submit.schema),
        ("statement_timeout", &submit.timeout),
        ("memory_limit", &submit.memory_limit),
    ] {
        if let Some(value) = value {
            let set = format!("SET {name} = '{}'", value.replace('\'', "''"));
            frontend.execute(session, &set, None).await?.affected_rows().await?;
        }
    }
    Ok(())
}

/// Gives the rows of the last statement.
async fn run(frontend: &dyn Frontend, session: &SessionId, submission: &Arc<Submission>) -> Result<Rows> {
    let statements: Vec<String> =
        submission.state.lock().statements.iter().map(|one| one.sql.clone()).collect();
    let last = statements.len() - 1;
    let mut result = None;
    for (at, sql) in statements.iter().enumerate() {
        metrics::counter!("tidemill_gateway_statements_total").increment(1);
        let mut answer = frontend.execute(session, sql, None).await?;
        {
            let mut state = submission.state.lock();
            state.status = Status::Running;
            state.started_at.get_or_insert_with(chrono::Utc::now);
            state.statements[at].job = Some(answer.job.to_string());
            state.statements[at].status = Status::Running;
        }
        let mut rows = Rows { schema: answer.schema.clone(), batches: Vec::new(), bytes: 0 };
        while let Some(batch) = answer.stream.next().await {
            let batch = batch.map_err(from_datafusion)?;
            let counted = match answer.kind {
                AnswerKind::Count => batch.columns().first().map_or(0, |counts| {
                    let counts = counts.as_any().downcast_ref::<UInt64Array>();
                    counts.and_then(arrow::compute::sum).unwrap_or(0)
                }),
                _ => batch.num_rows() as u64,
            };
            submission.state.lock().statements[at].rows += counted;
            if at == last {
                rows.bytes += batch.get_array_memory_size();
                if rows.bytes > RESULT_BYTES {
                    return Err(too_large());
                }
                rows.batches.push(batch);
            }
        }
        submission.state.lock().statements[at].status = Status::Done;
        result = Some(rows);
    }
    result.ok_or_else(|| Error::internal("a submission without a statement"))
}

fn too_large() -> Error {
    Error::new(Code::ResourcesExhausted, format!("the result is larger than {} MiB", RESULT_BYTES >> 20))
        .hint("write it with CREATE TABLE … AS or INSERT INTO, add a LIMIT, or read it through Flight SQL")
}
