//! Connections to other executors, one for each: HTTP/2 carries any number of fetches at once.

use ballista_core::client::BallistaClient;
use ballista_core::client_pool::{BallistaClientPool, PooledClient};
use ballista_core::error::Result;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::utils::GrpcClientConfig;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

type Place = (String, u16, GrpcClientConfig);

#[derive(Default)]
pub(crate) struct Connections {
    open: Mutex<HashMap<Place, BallistaClient>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.open.lock().len()).finish()
    }
}

#[async_trait::async_trait]
impl BallistaClientPool for Connections {
    async fn acquire(
        &self,
        host: &str,
        port: u16,
        config: &GrpcClientConfig,
        customize_endpoint: Option<Arc<BallistaConfigGrpcEndpoint>>,
    ) -> Result<PooledClient> {
        let place = (host.to_owned(), port, config.clone());
        let known = self.open.lock().get(&place).cloned();
        let client = match known {
            Some(client) => client,
            None => {
                let connecting = BallistaClient::try_new(
                    host,
                    port,
                    config.max_message_size,
                    config.use_tls,
                    customize_endpoint,
                    config.io_retries_times,
                    config.io_retry_wait_time_ms,
                    config.initial_connection_window_size,
                    config.initial_stream_window_size,
                );
                let client = connecting.await?;
                self.open.lock().insert(place, client.clone());
                client
            }
        };
        // The connection stays here and mends itself, so there is nothing to give back.
        Ok(PooledClient::new(client, Box::new(drop)))
    }

    /// Forgets all; those in use end with their last fetch.
    async fn evict_idle(&self) {
        self.open.lock().clear();
    }
}
