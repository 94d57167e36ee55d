//! The gateway, served on loopback and driven by arrow-flight's own client and by plain HTTP.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod adbc;
mod client;
mod flight;
mod frontend;
mod http;
mod ingest;
mod long;
mod security;
mod session;
mod substrait;

use adbc::smoke;
use arrow_flight::sql::client::FlightSqlServiceClient;
use frontend::PlainFrontend;
use std::sync::Arc;
use tidemill_core::config::Auth;
use tidemill_scheduler::gateway::{Credentials, FlightTls, serve_flight};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// A running gateway; it stops when it is dropped.
struct Served {
    frontend: Arc<PlainFrontend>,
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn secret() -> Credentials {
    let auth = Auth { user: Some("ann".to_owned()), password: Some("secret".to_owned()), ..Auth::default() };
    Credentials::new(&auth).unwrap()
}

impl Served {
    async fn start(credentials: Credentials) -> Self {
        Self::start_with(credentials, None).await
    }

    async fn start_with(credentials: Credentials, tls: Option<FlightTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let frontend = Arc::new(PlainFrontend::default());
        let shared = Arc::clone(&frontend);
        let task = tokio::spawn(async move {
            serve_flight(listener, shared, credentials, tls, std::future::pending()).await.unwrap();
        });
        Self { frontend, url, task }
    }

    /// A client on a connection of its own.
    async fn client(&self) -> FlightSqlServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        FlightSqlServiceClient::new(endpoint.connect().await.unwrap())
    }
}

/// Waits for a condition that another task brings about.
async fn eventually(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.unwrap();
}
