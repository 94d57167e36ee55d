//! Listens for Flight SQL.

use super::auth::Credentials;
use super::connection::{ClientIo, Doorkeeper};
use super::flight::FlightGateway;
use super::tls::FlightTls;
use crate::frontend::api::Frontend;
use arrow_flight::flight_service_server::FlightServiceServer;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;

const MAX_MESSAGE_BYTES: usize = 128 << 20;
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// A client that vanished without a word is noticed, and its queries end, within twice this.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Serves Flight SQL on `listener` until `shutdown` resolves; calls under way are then brought to their end.
pub async fn serve_flight(
    listener: TcpListener,
    frontend: Arc<dyn Frontend>,
    credentials: Credentials,
    tls: Option<FlightTls>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let mutual = tls.as_ref().is_some_and(|tls| tls.mutual);
    let doorkeeper = Doorkeeper::new(credentials, Arc::clone(&frontend), mutual);
    let gateway = FlightGateway::new(frontend, doorkeeper.clone())?;
    let (results, polls) = (Arc::clone(&gateway.results), Arc::clone(&gateway.polls));
    let service = FlightServiceServer::new(gateway)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let incoming = TcpListenerStream::new(listener).map(|accepted| {
        let stream = accepted?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(ClientIo::new(stream))
    });
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls.config).map_err(|error| {
            Error::new(Code::Config, format!("server.tls: {}", root_of(&error)))
                .hint("certificate and key must be a pair, in PEM format")
        })?;
    }
    let serving = server
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(InterceptedService::new(service, doorkeeper))
        .serve_with_incoming_shutdown(incoming, shutdown);
    let sweeping = async {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        loop {
            ticks.tick().await;
            results.sweep();
            polls.sweep();
        }
    };
    tokio::select! {
        served = serving => served.map_err(|error| Error::new(Code::Internal, format!("Flight SQL: {error}"))),
        () = sweeping => Ok(()),
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
