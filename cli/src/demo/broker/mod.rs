//! A Kafka-protocol broker inside this process, for the demo on machines without Kafka.
//!
//! Logs are held in memory and are gone with the process; one broker, no replicas, no consumer groups, no
//! transactions, no TLS. What it has, it has exactly: offsets without gaps, an end that is right at once,
//! fetches that begin anywhere, idempotent producers. Clients that speak Kafka 0.11 and later can use it.
//!
//! ```text
//! client ── frame ─▶ connection (one task) ─▶ requests ─▶ Topics { Log, Log, … }
//!                                                 ▲  fetches wait for `appended` ─┘
//! ```
//!
//! The wire format is that of <https://kafka.apache.org/protocol>, each API in the one version, or the two
//! that need no more code, named in [`requests::APIS`].

mod log;
mod requests;
#[cfg(test)]
mod tests;
mod wire;

use anyhow::Context;
use requests::Node;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What Kafka itself takes for a request by default.
const MAX_FRAME_BYTES: usize = 100 << 20;

/// A running broker; dropping it ends it and forgets its logs.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Broker {
    /// Listens on the loopback interface; port 0 takes a free one.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub(crate) async fn start(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .with_context(|| format!("the demo's broker cannot listen on 127.0.0.1:{port}"))?;
        let address = listener.local_addr()?;
        let node = Arc::new(Node::new(address));
        Ok(Self { address, serving: tokio::spawn(accept(listener, node)) })
    }

    /// Cuts every connection.
    pub(crate) async fn stop(mut self) {
        self.serving.abort();
        // The only outcome is "cancelled".
        (&mut self.serving).await.ok();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The connections end with this task, which owns them.
async fn accept(listener: TcpListener, node: Arc<Node>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&node)));
                }
                Err(error) => {
                    // Out of file handles, say; without a pause this would spin.
                    tracing::warn!(%error, "the demo's broker could not take a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve(stream: TcpStream, node: Arc<Node>) {
    if let Err(error) = answer_all(stream, &node).await {
        tracing::debug!(%error, "a connection to the demo's broker ended");
    }
}

/// Answers in the order of the requests, as Kafka promises, one at a time.
async fn answer_all(stream: TcpStream, node: &Node) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let length = match stream.read_i32().await {
            Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        anyhow::ensure!(length <= MAX_FRAME_BYTES, "a frame of {length} bytes");
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await?;
        if let Some(answer) = node.answer(&frame).await? {
            stream.write_all(&answer).await?;
        }
    }
}
