//! A connected client: where DataFrames begin.

use crate::catalog::RemoteCatalogs;
use crate::error::unsupported;
use crate::flight::{Flight, Login};
use crate::planner::RemotePlanner;
use arrow_flight::sql::CommandStatementQuery;
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that vanished without a word is noticed within twice this.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How to connect. By default without credentials, with tables looked up in `public`.
#[derive(Clone, Debug)]
pub struct Options {
    /// User and password.
    pub login: Option<(String, String)>,
    /// A bearer token, in place of `login`.
    pub token: Option<String>,
    /// The schema of tables that are named without one.
    pub schema: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { login: None, token: None, schema: "public".to_owned() }
    }
}

/// A session on a server. Clones share it; it ends with the last of them, and with the connection.
#[derive(Clone)]
pub struct Client {
    flight: Flight,
    catalogs: Arc<RemoteCatalogs>,
    context: SessionContext,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("catalogs", &self.catalogs).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `host:port`, `grpc://host:port` or `http://host:port`.
    pub async fn connect(url: &str, options: Options) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("grpc", url));
        if matches!(scheme, "https" | "grpc+tls" | "grpcs") {
            let hint = "make a `tonic` channel with your certificates and call Client::over";
            return Err(unsupported(format!("TLS by `{scheme}://`"), hint));
        }
        let address = format!("http://{}", rest.trim_end_matches('/'));
        let wrong = |error: tonic::transport::Error| DataFusionError::External(Box::new(error));
        let endpoint = Endpoint::from_shared(address)
            .map_err(wrong)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(wrong)?;
        Self::over(channel, options).await
    }

    /// Over a channel that the caller made, for TLS, proxies and the like.
    pub async fn over(channel: Channel, options: Options) -> Result<Self> {
        let login = match (&options.token, &options.login) {
            (Some(token), _) => Login::token(token)?,
            (None, Some((user, password))) => Login::password(user, password)?,
            (None, None) => Login::default(),
        };
        let flight = Flight::new(channel, login);
        let catalogs = Arc::new(RemoteCatalogs::fetch(flight.clone()).await?);
        let config = SessionConfig::new()
            .with_default_catalog_and_schema(catalogs.first(), &options.schema)
            .with_create_default_catalog_and_schema(false);
        // The server optimises: it knows the data, and its clock and time zone are those of the query.
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .with_catalog_list(Arc::clone(&catalogs) as _)
            .with_optimizer_rules(Vec::new())
            .with_physical_optimizer_rules(Vec::new())
            .with_query_planner(Arc::new(RemotePlanner::new(flight.clone())))
            .build();
        Ok(Self { flight, catalogs, context: SessionContext::new_with_state(state) })
    }

    /// The session: its catalog is the server's, and its DataFrames run there. `context().sql("…")` plans the
    /// text here, so that the DataFrame can be built upon; [`Self::sql`] sends it as it is.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// A table or view of the server: `name` or `schema.name`.
    pub async fn table(&self, name: &str) -> Result<DataFrame> {
        self.context.table(name).await
    }

    /// Runs any statement of the server's SQL and gives its rows as they come.
    pub async fn sql(&self, text: &str) -> Result<SendableRecordBatchStream> {
        self.flight.query(CommandStatementQuery { query: text.to_owned(), transaction_id: None }).await
    }

    /// Runs a statement that changes something; gives the number of rows written or removed, 0 when there are
    /// none to count.
    pub async fn execute(&self, text: &str) -> Result<u64> {
        Ok(u64::try_from(self.flight.update(text).await?).unwrap_or(0))
    }

    /// Asks again which schemas and tables there are. Only listings need it: a table that is opened by its name
    /// is always as the server has it now.
    pub async fn refresh(&self) -> Result<()> {
        self.catalogs.refresh().await
    }
}
