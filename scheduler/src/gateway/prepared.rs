//! Prepared statements: created and closed by actions, bound by `DoPut`, kept with the client's session.

use super::connection::{ClientSession, Prepared};
use super::statement::Statement;
use super::wire::wire_schema;
use crate::frontend::api::{AnswerKind, Frontend};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::ActionCreatePreparedStatementResult;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use tidemill_core::{Code, Error, Result};
use tonic::Status;

/// More than any client means to have open; beyond it, one forgets to close them.
const MAX_PREPARED: usize = 10_000;

pub(super) async fn create(
    session: &ClientSession,
    frontend: &dyn Frontend,
    statement: Statement,
) -> Result<ActionCreatePreparedStatementResult> {
    if session.prepared.len() >= MAX_PREPARED {
        let message = format!("this session has {MAX_PREPARED} prepared statements open");
        return Err(Error::new(Code::ResourcesExhausted, message).hint("close those that are done"));
    }
    let description = statement.describe(frontend, session).await?;
    let handle = uuid::Uuid::new_v4().simple().to_string();
    session.prepared.insert(handle.clone(), Prepared { statement, params: None });
    // By the protocol, no dataset schema means that the statement is to be run as an update.
    let dataset_schema = match description.kind {
        AnswerKind::Rows => encode_schema(&wire_schema(&description.schema))?,
        AnswerKind::Count | AnswerKind::Nothing => Bytes::new(),
    };
    // Drivers know view types no better as parameters than as results.
    let parameter_schema = encode_schema(&wire_schema(&description.parameters))?;
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: handle.into(),
        dataset_schema,
        parameter_schema,
    })
}

fn encode_schema(schema: &Schema) -> Result<Bytes> {
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()));
    message.map(|IpcMessage(bytes)| bytes).map_err(Error::internal)
}

fn key(handle: &Bytes) -> &str {
    std::str::from_utf8(handle).unwrap_or_default()
}

pub(super) fn find(session: &ClientSession, handle: &Bytes) -> Result<Prepared> {
    session.prepared.get(key(handle)).map(|statement| statement.clone()).ok_or_else(unknown)
}

pub(super) fn set_params(session: &ClientSession, handle: &Bytes, params: Option<RecordBatch>) -> Result<()> {
    session.prepared.get_mut(key(handle)).ok_or_else(unknown)?.params = params;
    Ok(())
}

pub(super) fn close(session: &ClientSession, handle: &Bytes) {
    session.prepared.remove(key(handle));
}

fn unknown() -> Error {
    Error::new(Code::UnknownObject, "this prepared statement does not exist")
        .hint("it ends with its connection, or with a restart of the server; prepare it again")
}

/// The rows that a client sent; `None` when it sent only the command.
pub(super) async fn read_params(
    stream: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<Option<RecordBatch>> {
    let data =
        stream.try_filter(|data| std::future::ready(!data.data_header.is_empty())).map_err(FlightError::from);
    let batches: Result<Vec<RecordBatch>, _> =
        FlightRecordBatchStream::new_from_flight_data(data).try_collect().await;
    let batches = batches.map_err(|error| {
        Error::new(Code::InvalidStatement, format!("the parameters do not read: {error}"))
    })?;
    match batches.first().map(RecordBatch::schema) {
        Some(schema) if !schema.fields().is_empty() => Ok(Some(concat_batches(&schema, &batches)?)),
        _ => Ok(None),
    }
}
