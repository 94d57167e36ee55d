//! The Flight SQL protocol: each call of the wire, and which part of the gateway answers it.

use super::auth::ANONYMOUS;
use super::connection::{ClientSession, Doorkeeper};
use super::metadata::{Facts, unknown};
use super::poll::{Polls, Standing};
use super::results::{JobNote, Results};
use super::statement::Statement;
use super::status::to_status;
use super::wire::{compression, encode, encode_batch, wire_schema};
use super::{actions, ingest, prepared};
use crate::frontend::api::{Answer, AnswerKind, Frontend};
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    Any, Command, DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaAsIpc, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use std::sync::Arc;
use tidemill_core::{Code, Error, JobId, Result};
use tonic::{Request, Response, Status, Streaming};

/// With this header in `GetFlightInfo`, statements that change something run while their answer is fetched, so
/// that the client knows the job and can watch it.
pub const RUN_ON_FETCH_HEADER: &str = "tidemill-run-on-fetch";

/// The gateway's state, shared by all calls.
pub(super) struct FlightGateway {
    pub(super) frontend: Arc<dyn Frontend>,
    pub(super) doorkeeper: Doorkeeper,
    pub(super) results: Arc<Results>,
    pub(super) polls: Arc<Polls>,
    facts: Facts,
}

pub(super) fn session_of<T>(request: &Request<T>) -> Result<Arc<ClientSession>> {
    let session = request.extensions().get::<Arc<ClientSession>>();
    session.cloned().ok_or_else(|| Error::internal("a call came past the doorkeeper"))
}

/// Reads the Flight SQL command in a descriptor or a ticket.
fn command_of(bytes: &Bytes) -> Result<Command> {
    let bad = |reason: String| Error::new(Code::InvalidStatement, format!("no Flight SQL command: {reason}"));
    let any = Any::decode(bytes.clone()).map_err(|error| bad(error.to_string()))?;
    Command::try_from(any).map_err(|error| bad(error.to_string()))
}

fn info(schema: &Schema, ticket: Bytes, descriptor: FlightDescriptor, note: Bytes) -> Result<FlightInfo> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    let info = FlightInfo::new().try_with_schema(schema).map_err(Error::internal)?;
    Ok(info.with_endpoint(endpoint).with_descriptor(descriptor).with_app_metadata(note))
}

impl FlightGateway {
    pub(super) fn new(frontend: Arc<dyn Frontend>, doorkeeper: Doorkeeper) -> Result<Self> {
        Ok(Self {
            frontend,
            doorkeeper,
            results: Arc::default(),
            polls: Arc::default(),
            facts: Facts::new()?,
        })
    }

    async fn flight_info(
        &self,
        session: &ClientSession,
        descriptor: FlightDescriptor,
        on_fetch: bool,
    ) -> Result<FlightInfo> {
        match command_of(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => {
                self.start(session, &query.try_into()?, None, descriptor, on_fetch).await
            }
            Command::CommandStatementSubstraitPlan(plan) => {
                self.start(session, &plan.try_into()?, None, descriptor, on_fetch).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let prepared = prepared::find(session, &query.prepared_statement_handle)?;
                self.start(session, &prepared.statement, prepared.params, descriptor, on_fetch).await
            }
            other => {
                let schema = self.facts.schema(&other).ok_or_else(|| unknown(&other))?;
                info(&schema, descriptor.cmd.clone(), descriptor, Bytes::new())
            }
        }
    }

    /// Starts a statement and keeps its answer for the `DoGet` that follows. What changes something is run to
    /// its end here, unless the client promised to fetch: many never read the answer of an INSERT.
    async fn start(
        &self,
        session: &ClientSession,
        statement: &Statement,
        params: Option<RecordBatch>,
        descriptor: FlightDescriptor,
        on_fetch: bool,
    ) -> Result<FlightInfo> {
        let mut answer = statement.execute(self.frontend.as_ref(), session, params).await?;
        if answer.kind != AnswerKind::Rows && !on_fetch {
            answer = answer.completed().await?;
        }
        self.keep(session, answer, descriptor)
    }

    /// Keeps the answer for the `DoGet` that follows.
    fn keep(
        &self,
        session: &ClientSession,
        answer: Answer,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo> {
        let note = serde_json::to_vec(&JobNote::of(&answer)).map_err(Error::internal)?;
        let info = info(&wire_schema(&answer.schema), handle_of(&answer.job), descriptor, note.into())?;
        self.results.keep(&session.user, answer);
        Ok(info)
    }

    /// Starts a statement, or says how one stands that was started by an earlier call.
    async fn poll(&self, session: &ClientSession, descriptor: FlightDescriptor) -> Result<PollInfo> {
        let polled = |info: PollInfo, progress| info.try_with_progress(progress).map_err(Error::internal);
        let job = match command_of(&descriptor.cmd)? {
            Command::TicketStatementQuery(ticket) => job_of(&ticket.statement_handle)?,
            Command::CommandStatementQuery(query) => {
                self.start_polled(session, &query.try_into()?, None).await?
            }
            Command::CommandStatementSubstraitPlan(plan) => {
                self.start_polled(session, &plan.try_into()?, None).await?
            }
            Command::CommandPreparedStatementQuery(query) => {
                let prepared = prepared::find(session, &query.prepared_statement_handle)?;
                self.start_polled(session, &prepared.statement, prepared.params).await?
            }
            _ => {
                let info = self.flight_info(session, descriptor, false).await?;
                return polled(PollInfo::new().with_info(info), 1.0);
            }
        };
        let again = FlightDescriptor::new_cmd(handle_of(&job));
        match self.polls.ask(&session.user, &job).await? {
            Standing::Ready(answer) => {
                polled(PollInfo::new().with_info(self.keep(session, answer, again)?), 1.0)
            }
            Standing::Running { note, schema, progress } => {
                let note = serde_json::to_vec(&note).map_err(Error::internal)?;
                let info = FlightInfo::new()
                    .try_with_schema(&wire_schema(&schema))
                    .map_err(Error::internal)?
                    .with_descriptor(again.clone())
                    .with_app_metadata(note);
                polled(PollInfo::new().with_info(info).with_descriptor(again), progress)
            }
        }
    }

    async fn start_polled(
        &self,
        session: &ClientSession,
        statement: &Statement,
        params: Option<RecordBatch>,
    ) -> Result<JobId> {
        let answer = statement.execute(self.frontend.as_ref(), session, params).await?;
        Ok(self.polls.start(&session.user, answer))
    }

    async fn schema(&self, session: &ClientSession, descriptor: &FlightDescriptor) -> Result<SchemaRef> {
        let statement = match command_of(&descriptor.cmd)? {
            Command::CommandStatementQuery(query) => query.try_into()?,
            Command::CommandStatementSubstraitPlan(plan) => plan.try_into()?,
            Command::CommandPreparedStatementQuery(query) => {
                prepared::find(session, &query.prepared_statement_handle)?.statement
            }
            other => return self.facts.schema(&other).ok_or_else(|| unknown(&other)),
        };
        let description = Statement::describe(&statement, self.frontend.as_ref(), session).await?;
        Ok(wire_schema(&description.schema))
    }

    async fn fetch(
        &self,
        session: &Arc<ClientSession>,
        ticket: &Ticket,
    ) -> Result<BoxStream<'static, Result<FlightData, Status>>> {
        match command_of(&ticket.ticket)? {
            Command::TicketStatementQuery(ticket) => {
                let job = job_of(&ticket.statement_handle)?;
                let options =
                    compression(&self.frontend.variable(session.id().await?, "result_compression").await?)?;
                let answer = self.results.take(&session.user, &job)?;
                // A session must not end while a result of it is read.
                let session = Arc::clone(session);
                let data = encode(answer.stream, &answer.schema, options).inspect(move |_| {
                    let _keep = &session;
                });
                Ok(data.boxed())
            }
            command => {
                let batch = self.facts.rows(command, self.frontend.as_ref(), session).await?;
                Ok(encode_batch(batch).boxed())
            }
        }
    }

    async fn put(&self, request: Request<Streaming<FlightData>>) -> Result<Vec<u8>> {
        let session = session_of(&request)?;
        let mut stream = request.into_inner().peekable();
        let first = std::pin::Pin::new(&mut stream).peek().await;
        let descriptor = match first {
            Some(Ok(data)) => data.flight_descriptor.clone(),
            Some(Err(status)) => return Err(Error::new(Code::ExternalFailure, status.message())),
            None => None,
        };
        let descriptor =
            descriptor.ok_or_else(|| Error::new(Code::InvalidStatement, "DoPut without a descriptor"))?;
        match command_of(&descriptor.cmd)? {
            Command::CommandStatementUpdate(update) => self.update(&session, &update.try_into()?, None).await,
            Command::CommandStatementSubstraitPlan(plan) => {
                self.update(&session, &plan.try_into()?, None).await
            }
            Command::CommandPreparedStatementQuery(query) => {
                let handle = query.prepared_statement_handle;
                prepared::set_params(&session, &handle, prepared::read_params(stream).await?)?;
                let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                Ok(result.encode_to_vec())
            }
            Command::CommandPreparedStatementUpdate(update) => {
                let prepared = prepared::find(&session, &update.prepared_statement_handle)?;
                let params = prepared::read_params(stream).await?.or(prepared.params);
                self.update(&session, &prepared.statement, params).await
            }
            Command::CommandStatementIngest(command) => {
                let ingest = ingest::read(command, stream).await?;
                updated(self.frontend.ingest(session.id().await?, ingest).await?).await
            }
            other => Err(unknown(&other)),
        }
    }

    async fn update(
        &self,
        session: &ClientSession,
        statement: &Statement,
        params: Option<RecordBatch>,
    ) -> Result<Vec<u8>> {
        updated(statement.execute(self.frontend.as_ref(), session, params).await?).await
    }
}

/// Runs the statement to its end; the encoded result holds the number of rows.
async fn updated(answer: Answer) -> Result<Vec<u8>> {
    let rows = answer.affected_rows().await?.unwrap_or(0);
    let result = DoPutUpdateResult { record_count: i64::try_from(rows).unwrap_or(i64::MAX) };
    Ok(result.encode_to_vec())
}

/// The ticket of a job's result.
fn handle_of(job: &JobId) -> Bytes {
    let statement_handle = Bytes::from(job.as_str().to_owned());
    TicketStatementQuery { statement_handle }.as_any().encode_to_vec().into()
}

pub(super) fn job_of(handle: &Bytes) -> Result<JobId> {
    let text = std::str::from_utf8(handle);
    text.map(JobId::new).map_err(|_| Error::new(Code::InvalidStatement, "the ticket is not one of ours"))
}

pub(super) fn no_transaction(id: Option<&Bytes>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => Err(Error::new(Code::Unsupported, "transactions")
            .hint("every statement commits by itself; leave autocommit on")),
        _ => Ok(()),
    }
}

/// Counts the failure and puts it on the wire.
pub(super) fn refused(error: Error) -> Status {
    metrics::counter!("tidemill_gateway_errors_total", "code" => error.code.to_string()).increment(1);
    tracing::debug!(%error, "statement refused");
    to_status(&error)
}

#[tonic::async_trait]
impl FlightService for FlightGateway {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;

    /// The doorkeeper has checked the credentials already; what is left is to give a token.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let session = session_of(&request).map_err(refused)?;
        let user = if session.user.is_empty() { ANONYMOUS } else { &session.user };
        let token = self.doorkeeper.issue_token(user);
        let payload = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let mut response = Response::new(stream::iter([Ok(payload)]).boxed());
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| refused(Error::internal("a token that is no header value")))?;
        response.metadata_mut().insert("authorization", value);
        Ok(response)
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        metrics::counter!("tidemill_gateway_statements_total").increment(1);
        let session = session_of(&request).map_err(refused)?;
        let on_fetch = request.metadata().contains_key(RUN_ON_FETCH_HEADER);
        let info = self.flight_info(&session, request.into_inner(), on_fetch).await.map_err(refused)?;
        Ok(Response::new(info))
    }

    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let session = session_of(&request).map_err(refused)?;
        Ok(Response::new(self.poll(&session, request.into_inner()).await.map_err(refused)?))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let session = session_of(&request).map_err(refused)?;
        let schema = self.schema(&session, request.get_ref()).await.map_err(refused)?;
        let encoded = SchemaResult::try_from(SchemaAsIpc::new(&schema, &IpcWriteOptions::default()));
        Ok(Response::new(encoded.map_err(|error| refused(Error::internal(error)))?))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let session = session_of(&request).map_err(refused)?;
        let data = self.fetch(&session, request.get_ref()).await.map_err(refused)?;
        Ok(Response::new(data))
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        metrics::counter!("tidemill_gateway_statements_total").increment(1);
        let app_metadata = self.put(request).await.map_err(refused)?.into();
        Ok(Response::new(stream::iter([Ok(PutResult { app_metadata })]).boxed()))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(refused(Error::new(Code::Unsupported, "DoExchange").hint("Flight SQL does not use it")))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let body = actions::run(self, request).await.map_err(refused)?;
        let results = body.into_iter().map(|body| Ok(arrow_flight::Result { body: body.into() }));
        Ok(Response::new(stream::iter(results.collect::<Vec<_>>()).boxed()))
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(Response::new(stream::iter(actions::list()).map(Ok).into_stream().boxed()))
    }
}
