//! Statements run on a server, over Flight SQL.

use super::backend::{Backend, Running};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{Action, CancelFlightInfoRequest, FlightEndpoint, FlightInfo, Ticket};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, JobId, Result};
use tidemill_engine::Progress;
use tidemill_scheduler::gateway::{JobNote, PROGRESS_ACTION, RUN_ON_FETCH_HEADER, to_error, use_aws_lc};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// Where systems keep the authorities that they trust.
const SYSTEM_AUTHORITIES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How the server knows us.
pub(crate) enum Login {
    Password { user: String, password: String },
    Token(String),
}

/// What a connection needs besides the address.
#[derive(Default)]
pub(crate) struct Access {
    pub(crate) login: Option<Login>,
    /// Authority of the server's certificate, in PEM; the system's without it.
    pub(crate) ca: Option<Vec<u8>>,
    /// Our certificate and its key, in PEM.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

pub(crate) struct Remote {
    server: String,
    client: FlightSqlServiceClient<Channel>,
}

impl Remote {
    /// Connects and makes sure that a Tidemill server lets us in.
    pub(crate) async fn connect(server: &str, access: Access) -> Result<Self> {
        let encrypted = access.ca.is_some() || access.identity.is_some();
        let url = url_of(server, encrypted);
        let unreachable = |reason: String| {
            Error::new(Code::Unreachable, format!("no server answers at {url}: {reason}"))
                .hint("start one with `tidemill local`, or name another with --server")
        };
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| unreachable(error.to_string()))?;
        let mut endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        if url.starts_with("https://") {
            endpoint = endpoint.tls_config(tls_of(&access)).map_err(|error| unreachable(root_of(&error)))?;
        }
        let channel = endpoint.connect().await.map_err(|error| unreachable(root_of(&error)))?;
        let service = FlightServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut client = FlightSqlServiceClient::new_from_inner(service);
        client.set_header(RUN_ON_FETCH_HEADER, "true");
        match access.login {
            Some(Login::Password { user, password }) => {
                let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
                client.set_header("authorization", format!("Basic {pair}"));
            }
            Some(Login::Token(token)) => client.set_header("authorization", format!("Bearer {token}")),
            None => {}
        }
        let remote = Self { server: url.clone(), client };
        match remote.ask_progress(&JobId::new("none")).await {
            Ok(_) => Ok(remote),
            Err(error) if error.code == Code::ExternalFailure && url.starts_with("http://") => {
                Err(error.hint("does the server speak TLS? Then its address begins with grpc+tls://"))
            }
            Err(error) => Err(error),
        }
    }

    async fn ask_progress(&self, job: &JobId) -> Result<Option<Progress>> {
        let action = Action::new(PROGRESS_ACTION, job.as_str().to_owned());
        let mut results = self.client.clone().do_action(action).await.map_err(ours)?;
        match results.message().await.map_err(|status| to_error(&status))? {
            Some(result) => Ok(Some(serde_json::from_slice(&result.body)?)),
            None => Ok(None),
        }
    }
}

/// The words of the innermost cause; the outer ones say only that there was an error.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// `host:port`, `grpc://host:port` and `http://host:port` are the same, and so are `grpc+tls`, `grpcs` and `https`.
/// An address without a scheme is encrypted when certificates are given.
fn url_of(server: &str, encrypted: bool) -> String {
    let (scheme, rest) =
        server.split_once("://").unwrap_or((if encrypted { "https" } else { "http" }, server));
    let scheme = if matches!(scheme, "https" | "grpcs" | "grpc+tls") { "https" } else { "http" };
    format!("{scheme}://{}", rest.trim_end_matches('/'))
}

fn tls_of(access: &Access) -> ClientTlsConfig {
    use_aws_lc();
    let mut tls = ClientTlsConfig::new();
    let system = || SYSTEM_AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
    if let Some(authorities) = access.ca.clone().or_else(system) {
        tls = tls.ca_certificate(Certificate::from_pem(authorities));
    }
    match &access.identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
        None => tls,
    }
}

fn ours(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => to_error(&status),
        FlightError::Arrow(error) => Error::from(error),
        other => Error::new(Code::ExternalFailure, other.to_string()),
    }
}

fn ticket(job: &JobId) -> Ticket {
    let statement = TicketStatementQuery { statement_handle: job.as_str().to_owned().into() };
    Ticket { ticket: statement.as_any().encode_to_vec().into() }
}

#[async_trait]
impl Backend for Remote {
    fn place(&self) -> String {
        format!("at {}", self.server)
    }

    async fn execute(&self, sql: &str) -> Result<Running> {
        let mut client = self.client.clone();
        let info = client.execute(sql.to_owned(), None).await.map_err(ours)?;
        let note: JobNote = serde_json::from_slice(&info.app_metadata)?;
        let schema = Arc::new(info.try_decode_schema()?);
        let rows = client.do_get(ticket(&note.job)).await.map_err(ours)?;
        Ok(Running {
            job: note.job,
            kind: note.kind,
            engine: note.engine.map(|engine| engine.as_str()),
            schema,
            rows: rows.map_err(ours).boxed(),
        })
    }

    async fn cancel(&self, job: &JobId) -> Result<()> {
        let info = FlightInfo::new().with_endpoint(FlightEndpoint::new().with_ticket(ticket(job)));
        let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec());
        self.client.clone().do_action(action).await.map_err(ours)?;
        Ok(())
    }

    async fn progress(&self, job: &JobId) -> Option<Progress> {
        self.ask_progress(job).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_in_every_form() {
        for form in ["h:1", "http://h:1", "http://h:1/", "grpc://h:1", "grpc+tcp://h:1"] {
            assert_eq!(url_of(form, false), "http://h:1");
        }
        for form in ["https://h:1", "grpcs://h:1/", "grpc+tls://h:1"] {
            assert_eq!(url_of(form, false), "https://h:1");
        }
        assert_eq!(url_of("h:1", true), "https://h:1");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let Err(error) = Remote::connect(&address, Access::default()).await else {
            panic!("connected to nothing")
        };
        assert_eq!(error.code, Code::Unreachable);
        assert!(error.message.contains(&address) && error.message.contains("refused"), "{error}");
    }
}
