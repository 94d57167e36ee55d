//! Connections to workers: one for each, shared by all queries, made again by itself when it breaks.

use async_trait::async_trait;
use dashmap::DashMap;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{ChannelResolver, GetWorkerInfoRequest, WorkerChannel};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// HTTP/2 windows: without them a stream carries 64 KiB a round trip.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

#[derive(Clone, Debug, Default)]
pub(super) struct Channels {
    channels: Arc<DashMap<Url, Channel>>,
}

impl Channels {
    fn channel(&self, url: &Url) -> DfResult<Channel> {
        if let Some(channel) = self.channels.get(url) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(url.to_string())
            .map_err(|error| DataFusionError::Configuration(format!("worker `{url}`: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(self.channels.entry(url.clone()).or_insert_with(|| endpoint.connect_lazy()).clone())
    }

    /// Whether the worker answers within the time-out of a connection.
    pub(super) async fn answers(&self, url: &Url) -> bool {
        let Ok(mut client) = self.get_worker_client_for_url(url).await else { return false };
        let answer = client.get_worker_info(GetWorkerInfoRequest {});
        matches!(tokio::time::timeout(CONNECT_TIMEOUT, answer).await, Ok(Ok(_)))
    }

    /// Forgets connections to workers that are gone.
    pub(super) fn retain(&self, keep: impl Fn(&Url) -> bool) {
        self.channels.retain(|url, _| keep(url));
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> DfResult<Box<dyn WorkerChannel>> {
        Ok(create_worker_client(BoxCloneSyncChannel::new(self.channel(url)?)))
    }
}
