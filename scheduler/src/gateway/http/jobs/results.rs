//! The rows of a job that is done, in the format that the client asks for.

use super::super::{App, Caller, Failure};
use super::submissions::Rows;
use super::{Status, no_job};
use crate::gateway::http::sql::json_rows;
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tidemill_core::{Code, Error, Result};

const JSON: &str = "application/json";
const CSV: &str = "text/csv";
const ARROW: &str = "application/vnd.apache.arrow.stream";

/// The rows of the last statement, for an hour after its end.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/result", tag = "jobs",
    params(("id" = String, Path, description = "of a submission")),
    responses(
        (status = 200, description = "by `Accept`: a JSON array of objects, CSV with a header, or an Arrow stream",
         content((Vec<serde_json::Value> = "application/json"), (String = "text/csv"),
                 (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        (status = 404, description = "no such job, or its result was removed"),
        (status = 409, description = "it is not done yet")
    )
)]
pub(in super::super) async fn result(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let submission = app.submissions.find(&id, Some(&caller.0)).ok_or_else(|| no_job(&id))?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or(JSON);
    let (status, error, rows) = {
        let state = submission.state.lock();
        (state.status, state.error.clone(), state.rows.clone())
    };
    if let Some(error) = error {
        return Err(Failure(error));
    }
    let rows = match (status, rows) {
        (Status::Done, Some(rows)) => rows,
        (Status::Done, None) => {
            return Err(Failure(
                Error::new(Code::NotFound, format!("the result of job `{id}` made room for newer ones"))
                    .hint("submit it again, and fetch the result when it is done"),
            ));
        }
        _ => {
            return Err(Failure(
                Error::new(Code::Conflict, format!("job `{id}` is not done yet"))
                    .hint(format!("GET /v1/jobs/{id} says how far it is")),
            ));
        }
    };
    let (format, body) = encode(&rows, accept)?;
    Ok(([(header::CONTENT_TYPE, format)], body).into_response())
}

/// The first format of `accept` that there is.
fn encode(rows: &Rows, accept: &str) -> Result<(&'static str, Vec<u8>)> {
    for wanted in accept.split(',') {
        let wanted = wanted.split(';').next().unwrap_or_default().trim();
        match wanted {
            CSV => return Ok((CSV, csv(rows)?)),
            ARROW => return Ok((ARROW, arrow_stream(rows)?)),
            JSON | "application/*" | "*/*" | "" => {
                return Ok((JSON, json_rows(&rows.batches)?.get().as_bytes().to_vec()));
            }
            _ => {}
        }
    }
    Err(Error::new(Code::Unsupported, format!("no result as `{accept}`"))
        .hint(format!("Accept: {JSON}, {CSV} or {ARROW}")))
}

fn csv(rows: &Rows) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = arrow::csv::Writer::new(&mut bytes);
    if rows.batches.is_empty() {
        writer.write(&arrow::array::RecordBatch::new_empty(rows.schema.clone()))?;
    }
    for batch in &rows.batches {
        writer.write(batch)?;
    }
    drop(writer);
    Ok(bytes)
}

fn arrow_stream(rows: &Rows) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &rows.schema)?;
    for batch in &rows.batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use std::sync::Arc;

    #[test]
    fn the_client_chooses_the_format() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let rows = Rows { schema: batch.schema(), batches: vec![batch.clone()], bytes: 0 };
        let text = |accept| String::from_utf8(encode(&rows, accept).unwrap().1).unwrap();
        assert_eq!(text("*/*"), "[{\"n\":1},{\"n\":2}]");
        assert_eq!(text("text/html, text/csv;q=0.9"), "n\n1\n2\n");
        let (_, bytes) = encode(&rows, ARROW).unwrap();
        let mut read = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).unwrap();
        assert_eq!(read.next().unwrap().unwrap(), batch);
        assert_eq!(encode(&rows, "text/html").unwrap_err().code, Code::Unsupported);
        let empty = Rows { schema: batch.schema(), batches: Vec::new(), bytes: 0 };
        assert_eq!(encode(&empty, CSV).unwrap().1, b"n\n");
    }
}
