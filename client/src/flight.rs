//! The calls of Flight SQL that this crate makes.

use crate::error::{broken, refused, unsupported};
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    CommandStatementSubstraitPlan, CommandStatementUpdate, DoPutUpdateResult, ProstMessageExt, SubstraitPlan,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};
use prost::Message;
use std::sync::Arc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// Puts the credentials on every call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login(Option<MetadataValue<Ascii>>);

impl Login {
    pub(crate) fn password(user: &str, password: &str) -> Result<Self> {
        Self::header(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
    }

    pub(crate) fn token(token: &str) -> Result<Self> {
        Self::header(format!("Bearer {token}"))
    }

    fn header(value: String) -> Result<Self> {
        let value = value.parse::<MetadataValue<Ascii>>();
        let mut value = value
            .map_err(|_| DataFusionError::Configuration("the token is no text for a header".to_owned()))?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A connection; clones share it and its session on the server.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    service: FlightServiceClient<InterceptedService<Channel, Login>>,
}

impl Flight {
    pub(crate) fn new(channel: Channel, login: Login) -> Self {
        let service = FlightServiceClient::with_interceptor(channel, login)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { service }
    }

    /// Runs a command and gives its rows as they come.
    pub(crate) async fn query(&self, command: impl ProstMessageExt) -> Result<SendableRecordBatchStream> {
        let mut service = self.service.clone();
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let info = service.get_flight_info(descriptor).await.map_err(refused)?.into_inner();
        let schema = Arc::new(info.clone().try_decode_schema()?);
        let parts = stream::iter(tickets(info)?).then(move |ticket| {
            let mut service = service.clone();
            async move {
                let data = service.do_get(ticket).await.map_err(refused)?.into_inner();
                let data = data.map_err(|status| FlightError::Tonic(Box::new(status)));
                Ok::<_, DataFusionError>(FlightRecordBatchStream::new_from_flight_data(data).map_err(broken))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, parts.try_flatten())))
    }

    pub(crate) async fn collect(&self, command: impl ProstMessageExt) -> Result<Vec<RecordBatch>> {
        self.query(command).await?.try_collect().await
    }

    /// Runs a Substrait plan, whose rows come in `schema`.
    pub(crate) async fn run(&self, plan: Vec<u8>, schema: SchemaRef) -> Result<SendableRecordBatchStream> {
        let version = datafusion_substrait::substrait::version::version();
        let version = format!("{}.{}.{}", version.major_number, version.minor_number, version.patch_number);
        let plan = SubstraitPlan { plan: plan.into(), version };
        let rows =
            self.query(CommandStatementSubstraitPlan { plan: Some(plan), transaction_id: None }).await?;
        let target = Arc::clone(&schema);
        let rows = rows.map(move |batch| fit(&batch?, &target));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Runs SQL text that changes something; gives the number of rows.
    pub(crate) async fn update(&self, query: &str) -> Result<i64> {
        let command = CommandStatementUpdate { query: query.to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let data = FlightData::new().with_descriptor(descriptor);
        let mut results =
            self.service.clone().do_put(stream::iter([data])).await.map_err(refused)?.into_inner();
        let result = results.message().await.map_err(refused)?;
        let result = result.ok_or_else(|| internal("the server gave no result"))?;
        let result = DoPutUpdateResult::decode(result.app_metadata).map_err(internal)?;
        Ok(result.record_count)
    }
}

fn internal(error: impl std::fmt::Display) -> DataFusionError {
    DataFusionError::Internal(format!("Flight SQL: {error}"))
}

fn tickets(info: FlightInfo) -> Result<Vec<arrow_flight::Ticket>> {
    let ticket = |endpoint: arrow_flight::FlightEndpoint| {
        if !endpoint.location.is_empty() {
            return Err(unsupported("a result at another address", "ask for results from one address"));
        }
        endpoint.ticket.ok_or_else(|| internal("an endpoint without a ticket"))
    };
    info.endpoint.into_iter().map(ticket).collect()
}

/// The batch in the types that the plan promised: the wire knows no views and no dictionaries.
fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        let (given, expected) = (batch.num_columns(), schema.fields().len());
        return Err(internal(format!("{given} columns came where {expected} were expected")));
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        }
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// A schema as Flight SQL's metadata carries it.
pub(crate) fn decode_schema(bytes: &[u8]) -> Result<Schema> {
    Ok(Schema::try_from(arrow_flight::IpcMessage(bytes.to_vec().into()))?)
}
