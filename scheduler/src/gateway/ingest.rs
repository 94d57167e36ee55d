//! `CommandStatementIngest`: the stream of a `DoPut` becomes the rows of one write.

use super::flight::no_transaction;
use super::status::to_error;
use crate::frontend::api::{Ingest, IngestInto};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, TryStreamExt};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::to_datafusion;
use tonic::Status;

/// What the command asks for, over the rows that follow it.
pub(super) async fn read(
    command: CommandStatementIngest,
    data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<Ingest> {
    no_transaction(command.transaction_id.as_ref())?;
    if command.temporary {
        return Err(Error::new(Code::Unsupported, "temporary tables")
            .hint("ingest into a table and DROP it, or into a schema of its own"));
    }
    if let Some(option) = command.options.keys().next() {
        return Err(Error::new(Code::BadOption, format!("no ingest option `{option}`")));
    }
    let asked = command.table_definition_options.unwrap_or_default();
    let create = match asked.if_not_exist() {
        TableNotExistOption::Unspecified => return Err(unclear()),
        TableNotExistOption::Create => true,
        TableNotExistOption::Fail => false,
    };
    let into = match asked.if_exists() {
        TableExistsOption::Unspecified => return Err(unclear()),
        TableExistsOption::Fail => IngestInto::NewTable,
        TableExistsOption::Append => IngestInto::Append,
        TableExistsOption::Replace => IngestInto::Replaced,
    };
    if !create && into == IngestInto::NewTable {
        return Err(unclear());
    }
    let rows = rows(data).await?;
    let (catalog, schema) = (command.catalog, command.schema);
    Ok(Ingest { catalog, schema, table: command.table, create, into, rows })
}

/// Waits for the schema; the batches come as they are asked for, so a slow write slows the client.
async fn rows(
    data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<SendableRecordBatchStream> {
    // A message with nothing but the command is not part of the Arrow stream.
    let data = data.try_filter(|data| std::future::ready(!data.data_header.is_empty()));
    let mut decoder = FlightDataDecoder::new(data.map_err(FlightError::from));
    let schema = match decoder.next().await {
        Some(Ok(message)) => match message.payload {
            DecodedPayload::Schema(schema) => schema,
            _ => return Err(unreadable("they do not begin with a schema")),
        },
        Some(Err(error)) => return Err(broken(error)),
        None => return Err(unreadable("there is no schema")),
    };
    let batches = decoder.filter_map(|message| {
        std::future::ready(match message.map(|message| message.payload) {
            Ok(DecodedPayload::RecordBatch(batch)) => Some(Ok(batch)),
            Ok(DecodedPayload::None) => None,
            Ok(DecodedPayload::Schema(_)) => Some(Err(to_datafusion(unreadable("the schema changes")))),
            Err(error) => Some(Err(to_datafusion(broken(error)))),
        })
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
}

fn unclear() -> Error {
    Error::new(Code::InvalidStatement, "the ingest does not say whether the table is made or there already")
        .hint("create, append, replace or create_append")
}

fn broken(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => to_error(&status).context("reading the client's rows"),
        other => unreadable(other),
    }
}

fn unreadable(reason: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidStatement, format!("the rows do not read: {reason}"))
}
