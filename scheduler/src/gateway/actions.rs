//! `DoAction`: prepared statements, cancelling, progress, the end of a session.

use super::auth::{Authorization, parse};
use super::connection::Connection;
use super::flight::{FlightGateway, job_of, session_of};
use super::options::{self, SetSessionOptionsRequest};
use super::prepared;
use super::statement::Statement;
use crate::frontend::params::number_placeholders;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedSubstraitPlanRequest, Any, Command,
    ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
    RenewFlightEndpointRequest,
};
use bytes::Bytes;
use prost::Message;
use tidemill_core::{Code, Error, Result};
use tonic::Request;

/// Our own action: the body is a job id, the result is its `Progress` as JSON, or nothing when it does not run.
pub const PROGRESS_ACTION: &str = "tidemill.Progress";

const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CREATE_PREPARED_SUBSTRAIT: &str = "CreatePreparedSubstraitPlan";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const RENEW_ENDPOINT: &str = "RenewFlightEndpoint";
const CANCEL_QUERY: &str = "CancelQuery";
const SET_OPTIONS: &str = "SetSessionOptions";
const GET_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

pub(super) fn list() -> Vec<ActionType> {
    let all = [
        (CREATE_PREPARED, "Plans a statement for many runs"),
        (CREATE_PREPARED_SUBSTRAIT, "Plans a Substrait plan for many runs"),
        (CLOSE_PREPARED, "Forgets a prepared statement"),
        (CANCEL_FLIGHT_INFO, "Cancels a statement by its FlightInfo"),
        (CANCEL_QUERY, "Cancels a statement by its FlightInfo (the older form)"),
        (RENEW_ENDPOINT, "Keeps a result that waits to be fetched for another five minutes"),
        (SET_OPTIONS, "Sets variables of the session, its catalog and its schema"),
        (GET_OPTIONS, "Gives all variables of the session"),
        (CLOSE_SESSION, "Ends the session: its variables and prepared statements are gone"),
        (PROGRESS_ACTION, "Tells how far a job is, as JSON; the body is the job's id"),
    ];
    let typed = all.map(|(name, text)| ActionType { r#type: name.to_owned(), description: text.to_owned() });
    typed.into()
}

/// `CloseSessionResult` of the Flight protocol.
#[derive(Clone, PartialEq, Message)]
struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SESSION_CLOSED: i32 = 1;

/// Runs the action; each element is the body of one result.
pub(super) async fn run(gateway: &FlightGateway, request: Request<Action>) -> Result<Vec<Vec<u8>>> {
    let session = session_of(&request)?;
    let (metadata, extensions, action) = request.into_parts();
    match action.r#type.as_str() {
        CREATE_PREPARED => {
            let request: ActionCreatePreparedStatementRequest = unpack(action.body)?;
            let sql = number_placeholders(&request.query)?.into_owned();
            let created = prepared::create(&session, gateway.frontend.as_ref(), Statement::Sql(sql)).await?;
            Ok(vec![created.as_any().encode_to_vec()])
        }
        CREATE_PREPARED_SUBSTRAIT => {
            let request: ActionCreatePreparedSubstraitPlanRequest = unpack(action.body)?;
            let created = prepared::create(&session, gateway.frontend.as_ref(), request.try_into()?).await?;
            Ok(vec![created.as_any().encode_to_vec()])
        }
        CLOSE_PREPARED => {
            let request: ActionClosePreparedStatementRequest = unpack(action.body)?;
            prepared::close(&session, &request.prepared_statement_handle);
            Ok(Vec::new())
        }
        CANCEL_FLIGHT_INFO => {
            let request = CancelFlightInfoRequest::decode(action.body).map_err(unreadable)?;
            let cancelled = cancel(gateway, &session.user, request.info).await?;
            Ok(vec![CancelFlightInfoResult::new(cancelled).encode_to_vec()])
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(action.body)?;
            let info = FlightInfo::decode(request.info).map_err(unreadable)?;
            // The numbers of the older enumeration are the same.
            let result = cancel(gateway, &session.user, Some(info)).await? as i32;
            Ok(vec![ActionCancelQueryResult { result }.as_any().encode_to_vec()])
        }
        RENEW_ENDPOINT => {
            let request = RenewFlightEndpointRequest::decode(action.body).map_err(unreadable)?;
            let endpoint = request.endpoint.unwrap_or_default();
            let ticket = endpoint.ticket.clone().unwrap_or_default();
            let any = Any::decode(ticket.ticket).map_err(unreadable)?;
            if let Ok(Command::TicketStatementQuery(ticket)) = Command::try_from(any) {
                gateway.results.renew(&session.user, &job_of(&ticket.statement_handle)?)?;
            }
            Ok(vec![endpoint.encode_to_vec()])
        }
        SET_OPTIONS => {
            let request = SetSessionOptionsRequest::decode(action.body).map_err(unreadable)?;
            let result = options::set(&session, gateway.frontend.as_ref(), request).await?;
            Ok(vec![result.encode_to_vec()])
        }
        GET_OPTIONS => {
            let result = options::get(&session, gateway.frontend.as_ref()).await?;
            Ok(vec![result.encode_to_vec()])
        }
        CLOSE_SESSION => {
            let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
            if let Authorization::Bearer(token) = parse(header)? {
                gateway.doorkeeper.revoke_token(token);
            }
            if let Some(connection) = extensions.get::<Connection>() {
                connection.end(&session);
            }
            Ok(vec![CloseSessionResult { status: SESSION_CLOSED }.encode_to_vec()])
        }
        PROGRESS_ACTION => match gateway.frontend.progress(&job_of(&action.body)?).await {
            Some(progress) => Ok(vec![serde_json::to_vec(&progress).map_err(Error::internal)?]),
            None => Ok(Vec::new()),
        },
        other => {
            let names = list();
            let error = Error::new(Code::Unsupported, format!("action `{other}`"));
            Err(error.suggest(other, names.iter().map(|action| action.r#type.as_str())))
        }
    }
}

async fn cancel(gateway: &FlightGateway, user: &str, info: Option<FlightInfo>) -> Result<CancelStatus> {
    let info = info.unwrap_or_default();
    // What is polled and not ready has no ticket yet; its descriptor names the job.
    let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
    let handle = ticket.map(|ticket| ticket.ticket).or(info.flight_descriptor.map(|again| again.cmd));
    let handle = handle.ok_or_else(|| Error::new(Code::InvalidStatement, "the FlightInfo has no ticket"))?;
    let any = Any::decode(handle).map_err(unreadable)?;
    let Ok(Command::TicketStatementQuery(ticket)) = Command::try_from(any) else {
        return Ok(CancelStatus::NotCancellable);
    };
    let job = job_of(&ticket.statement_handle)?;
    let owner = gateway.doorkeeper.owner(user);
    let running = gateway.frontend.cancel(&job, owner).await?;
    let waiting = gateway.results.discard(owner, &job) || gateway.polls.discard(owner, &job);
    if running || waiting {
        return Ok(CancelStatus::Cancelled);
    }
    Err(Error::new(Code::UnknownObject, format!("the job `{job}` is not running")))
}

fn unpack<M: ProstMessageExt>(body: Bytes) -> Result<M> {
    let message = Any::decode(body).map_err(unreadable)?.unpack().map_err(unreadable)?;
    message.ok_or_else(|| unreadable("another message than the action takes"))
}

fn unreadable(reason: impl std::fmt::Display) -> Error {
    Error::new(Code::InvalidStatement, format!("the action's body does not read: {reason}"))
}
