//! Reads the partitions of a finished job from the executors that hold them, over connections that stay open.

use ballista_core::client::BallistaClient;
use ballista_core::serde::protobuf::PartitionLocation;
use dashmap::DashMap;
use datafusion::execution::SendableRecordBatchStream;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};

const MESSAGE_BYTES: usize = 128 << 20;
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
const TRIES: u8 = 3;
const WAIT: Duration = Duration::from_millis(100);

/// One connection an executor; a clone shares it.
#[derive(Clone, Default)]
pub(super) struct Clients {
    open: Arc<DashMap<(String, u16), BallistaClient>>,
}

impl Clients {
    pub(super) async fn fetch(&self, location: PartitionLocation) -> Result<SendableRecordBatchStream> {
        let layout = location.layout();
        let (Some(executor), Some(partition)) = (location.executor_meta, location.partition_id) else {
            return Err(Error::internal("a result partition without a place"));
        };
        let place = (executor.host, executor.port as u16);
        let mut client = self.client(&place).await?;
        let fetched =
            client.fetch_partition(&executor.id, &partition.into(), location.file_id, layout, true).await;
        fetched.map_err(|error| {
            self.open.remove(&place);
            lost(&place, error)
        })
    }

    async fn client(&self, place: &(String, u16)) -> Result<BallistaClient> {
        if let Some(client) = self.open.get(place) {
            return Ok(client.clone());
        }
        let wait_ms = WAIT.as_millis() as u64;
        let connecting = BallistaClient::try_new(
            &place.0,
            place.1,
            MESSAGE_BYTES,
            false,
            None,
            TRIES,
            wait_ms,
            CONNECTION_WINDOW_BYTES,
            STREAM_WINDOW_BYTES,
        );
        let client = connecting.await.map_err(|error| lost(place, error))?;
        self.open.insert(place.clone(), client.clone());
        Ok(client)
    }
}

fn lost((host, port): &(String, u16), error: impl std::fmt::Display) -> Error {
    Error::new(Code::WorkerLost, format!("executor {host}:{port} does not give its results: {error}"))
        .hint("run the statement again")
}
