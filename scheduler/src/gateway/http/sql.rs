//! Statements over HTTP, for people and scripts: small results as JSON. What is large belongs on Flight SQL.

use super::{App, Caller, Failure};
use crate::frontend::api::{Answer, AnswerKind};
use crate::gateway::opened::Opened;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::json::WriterBuilder;
use arrow::json::writer::JsonArray;
use axum::extract::State;
use axum::{Extension, Json};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::Instant;
use tidemill_core::{Error, Result};
use tidemill_engine::{EngineKind, from_datafusion};

const DEFAULT_LIMIT: usize = 1_000;
const MAX_LIMIT: usize = 100_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement {
    sql: String,
    /// Most rows that are returned; the job ends when they are there.
    limit: Option<usize>,
}

#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    job: String,
    kind: AnswerKind,
    engine: Option<EngineKind>,
    reason: String,
    columns: Vec<Column>,
    pub(super) rows: Box<RawValue>,
    row_count: usize,
    /// Whether rows were left out for the limit.
    truncated: bool,
    elapsed_ms: u64,
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
}

pub(super) async fn run(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Json(statement): Json<Statement>,
) -> Result<Json<Outcome>, Failure> {
    let limit = statement.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    Ok(Json(once(&app, &caller, &statement.sql, limit).await?))
}

/// Runs a statement in a session of its own.
pub(super) async fn once(app: &App, caller: &Caller, sql: &str, limit: usize) -> Result<Outcome> {
    let session = Opened::new(app.frontend.clone(), &caller.0).await?;
    metrics::counter!("tidemill_gateway_statements_total").increment(1);
    let started = Instant::now();
    let answer = app.frontend.execute(&session.id, sql, None).await?;
    let (job, kind, engine) = (answer.job.to_string(), answer.kind, answer.engine);
    let (reason, columns) = (answer.reason.clone(), columns(&answer.schema));
    let (batches, row_count, truncated) = collect(answer, limit).await?;
    Ok(Outcome {
        job,
        kind,
        engine,
        reason,
        columns,
        rows: json_rows(&batches)?,
        row_count,
        truncated,
        elapsed_ms: started.elapsed().as_millis() as u64,
    })
}

fn columns(schema: &Schema) -> Vec<Column> {
    let fields = schema.fields().iter();
    fields
        .map(|field| Column { name: field.name().clone(), data_type: field.data_type().to_string() })
        .collect()
}

/// The first rows. A write is always run to its end.
async fn collect(mut answer: Answer, limit: usize) -> Result<(Vec<RecordBatch>, usize, bool)> {
    let (mut batches, mut rows) = (Vec::new(), 0);
    while let Some(batch) = answer.stream.next().await {
        let batch = batch.map_err(from_datafusion)?;
        let room = limit - rows;
        if answer.kind == AnswerKind::Rows && batch.num_rows() > room {
            batches.push(batch.slice(0, room));
            return Ok((batches, limit, true));
        }
        let taken = batch.num_rows().min(room);
        rows += taken;
        batches.push(batch.slice(0, taken));
    }
    Ok((batches, rows, false))
}

/// An array of objects.
pub(super) fn json_rows(batches: &[RecordBatch]) -> Result<Box<RawValue>> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let mut text = String::from_utf8(writer.into_inner()).map_err(Error::internal)?;
    if text.is_empty() {
        text.push_str("[]");
    }
    RawValue::from_string(text).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use std::sync::Arc;

    #[test]
    fn rows_are_objects_with_nulls() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        assert_eq!(json_rows(&[batch]).unwrap().get(), "[{\"n\":1},{\"n\":null}]");
        assert_eq!(json_rows(&[]).unwrap().get(), "[]");
    }
}
