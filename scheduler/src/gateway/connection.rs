//! Which session a call belongs to.
//!
//! ```text
//! TcpStream ─▶ ClientIo (carries a Connection) ─▶ Doorkeeper: header + connection ─▶ Arc<ClientSession>
//! ```

use super::auth::{ANONYMOUS, Authorization, Credentials, parse, unauthenticated};
use super::opened::Opened;
use super::options::{self, Wanted};
use super::statement::Statement;
use super::status::to_status;
use crate::frontend::api::{Frontend, SessionId};
use arrow::array::RecordBatch;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tidemill_core::{Code, Error, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tonic::transport::server::{Connected, TlsConnectInfo};
use tonic::{Request, Status};

/// A token that was not used for so long is forgotten.
const TOKEN_IDLE: Duration = Duration::from_secs(24 * 3600);

/// A statement that a client prepared.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) statement: Statement,
    pub(super) params: Option<RecordBatch>,
}

/// The state of one client; when its last reference goes, the frontend's session is closed.
pub(super) struct ClientSession {
    pub(super) user: String,
    pub(super) prepared: DashMap<String, Prepared>,
    frontend: Arc<dyn Frontend>,
    session: OnceCell<Opened>,
    /// What the headers of the newest call ask for, and what of it was done.
    wanted: Mutex<Wanted>,
    applied: tokio::sync::Mutex<Wanted>,
}

impl ClientSession {
    fn new(user: &str, frontend: Arc<dyn Frontend>) -> Arc<Self> {
        Arc::new(Self {
            user: user.to_owned(),
            prepared: DashMap::new(),
            frontend,
            session: OnceCell::new(),
            wanted: Mutex::default(),
            applied: tokio::sync::Mutex::default(),
        })
    }

    /// The frontend's session, opened with the first statement, with the variables that the headers ask for.
    /// They are set when they come for the first time or change; a SET after that stands.
    pub(super) async fn id(&self) -> Result<&SessionId> {
        let id = self.opened().await?;
        let wanted = self.wanted.lock().clone();
        let mut applied = self.applied.lock().await;
        for (name, value) in &wanted {
            if applied.get(name) != Some(value) {
                options::set_one(self, self.frontend.as_ref(), name, Some(value))
                    .await
                    .map_err(|error| error.context(format!("the header `{name}`")))?;
                applied.insert(name.clone(), value.clone());
            }
        }
        Ok(id)
    }

    /// The frontend's session as it is.
    pub(super) async fn opened(&self) -> Result<&SessionId> {
        let open = || Opened::new(Arc::clone(&self.frontend), &self.user);
        Ok(&self.session.get_or_try_init(open).await?.id)
    }
}

/// The sessions of one TCP connection, one for each user that speaks over it.
#[derive(Clone, Default)]
pub(super) struct Connection(Arc<Mutex<HashMap<String, Arc<ClientSession>>>>);

impl Connection {
    fn session(&self, user: &str, frontend: &Arc<dyn Frontend>) -> Arc<ClientSession> {
        let mut sessions = self.0.lock();
        let session =
            sessions.entry(user.to_owned()).or_insert_with(|| ClientSession::new(user, Arc::clone(frontend)));
        Arc::clone(session)
    }
}

impl Connection {
    /// The next call begins a session anew.
    pub(super) fn end(&self, session: &Arc<ClientSession>) {
        self.0.lock().retain(|_, kept| !Arc::ptr_eq(kept, session));
    }
}

/// An accepted connection with the sessions that live as long as it does.
pub(super) struct ClientIo {
    stream: TcpStream,
    connection: Connection,
}

impl ClientIo {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, connection: Connection::default() }
    }
}

impl Connected for ClientIo {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// What a bearer token stands for.
struct Token {
    session: Arc<ClientSession>,
    used: Instant,
}

/// Lets calls in and gives each its session.
#[derive(Clone)]
pub(super) struct Doorkeeper {
    credentials: Credentials,
    frontend: Arc<dyn Frontend>,
    tokens: Arc<Mutex<HashMap<String, Token>>>,
    /// Whether callers must show a certificate, whatever else they know.
    certificates: bool,
}

impl Doorkeeper {
    pub(super) fn new(credentials: Credentials, frontend: Arc<dyn Frontend>, certificates: bool) -> Self {
        Self { credentials, frontend, tokens: Arc::default(), certificates }
    }

    /// See [`Credentials::owner`].
    pub(super) fn owner<'a>(&self, user: &'a str) -> Option<&'a str> {
        self.credentials.owner(user)
    }

    /// A new token with a session of its own.
    pub(super) fn issue_token(&self, user: &str) -> String {
        let token = uuid::Uuid::new_v4().simple().to_string();
        let session = ClientSession::new(user, Arc::clone(&self.frontend));
        let now = Instant::now();
        let mut tokens = self.tokens.lock();
        tokens.retain(|_, token| now.duration_since(token.used) < TOKEN_IDLE);
        tokens.insert(token.clone(), Token { session, used: now });
        token
    }

    pub(super) fn revoke_token(&self, token: &str) {
        self.tokens.lock().remove(token);
    }

    fn token_session(&self, token: &str) -> Option<Arc<ClientSession>> {
        let mut tokens = self.tokens.lock();
        let token = tokens.get_mut(token)?;
        token.used = Instant::now();
        Some(Arc::clone(&token.session))
    }

    fn admit(&self, header: Option<&str>, connection: Option<&Connection>) -> Result<Arc<ClientSession>> {
        let user = match parse(header)? {
            Authorization::Bearer(token) => match self.token_session(token) {
                Some(session) => return Ok(session),
                None => match self.credentials.user_of_token(token)? {
                    Some(user) => user,
                    None if self.credentials.required() => {
                        return Err(unauthenticated("the bearer token is not known here, or expired"));
                    }
                    None => ANONYMOUS.to_owned(),
                },
            },
            Authorization::Basic { user, password } => {
                self.credentials.check(&user, &password)?;
                user
            }
            Authorization::Missing if self.credentials.required() => {
                return Err(unauthenticated("user and password, or a bearer token, are missing"));
            }
            Authorization::Missing => ANONYMOUS.to_owned(),
        };
        Ok(match connection {
            Some(connection) => connection.session(&user, &self.frontend),
            None => ClientSession::new(&user, Arc::clone(&self.frontend)),
        })
    }
}

impl tonic::service::Interceptor for Doorkeeper {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let shown = request.extensions().get::<TlsConnectInfo<Connection>>();
        let shown = shown.and_then(TlsConnectInfo::peer_certs).is_some_and(|chain| !chain.is_empty());
        if self.certificates && !shown {
            let error = Error::new(Code::Unauthenticated, "the client shows no certificate")
                .hint("this server asks for one: give the client a certificate and its key");
            return Err(to_status(&error));
        }
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let connection = request.extensions().get::<Connection>();
        let session = self.admit(header, connection).map_err(|error| to_status(&error))?;
        let wanted = options::of_headers(request.metadata());
        if !wanted.is_empty() {
            *session.wanted.lock() = wanted;
        }
        request.extensions_mut().insert(session);
        Ok(request)
    }
}
