//! Heartbeats and the list of executors over HTTP.

use super::Executors;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use std::sync::Arc;
use tidemill_core::{Error, ExecutorId};
use tidemill_engine::pipelined::Heartbeat;
use url::Url;

/// `POST /v1/executors/heartbeat` and `GET /v1/executors`.
pub fn router(executors: Arc<Executors>) -> Router {
    Router::new()
        .route("/v1/executors/heartbeat", post(heartbeat))
        .route("/v1/executors", get(list))
        .with_state(executors)
}

async fn heartbeat(
    State(executors): State<Arc<Executors>>,
    Json(beat): Json<Heartbeat>,
) -> Result<StatusCode, (StatusCode, Json<Error>)> {
    match executors.beat(beat) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err((StatusCode::CONFLICT, Json(error))),
    }
}

#[derive(Serialize)]
struct Executor {
    id: ExecutorId,
    url: Url,
    vcores: usize,
    build: String,
    silent_ms: u64,
}

async fn list(State(executors): State<Arc<Executors>>) -> Json<Vec<Executor>> {
    let mut list: Vec<Executor> = executors
        .alive()
        .into_iter()
        .map(|(member, silent)| Executor {
            id: member.id,
            url: member.url,
            vcores: member.vcores,
            build: member.build,
            silent_ms: silent.as_millis() as u64,
        })
        .collect();
    list.sort_by(|left, right| left.id.cmp(&right.id));
    Json(list)
}
