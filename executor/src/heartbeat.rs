//! Tells the scheduler again and again that this executor is alive. A scheduler that restarted learns of it
//! by the next beat.

use reqwest::{Client, StatusCode};
use std::convert::Infallible;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::pipelined::Heartbeat;

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Beats {
    client: Client,
    url: String,
    beat: Heartbeat,
}

impl Beats {
    pub(crate) fn new(scheduler_url: &str, beat: Heartbeat) -> Result<Self> {
        let client = Client::builder().timeout(TIMEOUT).tcp_nodelay(true).build().map_err(Error::internal)?;
        let url = format!("{}/v1/executors/heartbeat", scheduler_url.trim_end_matches('/'));
        Ok(Self { client, url, beat })
    }

    /// Beats for ever. What goes wrong is logged when it changes.
    pub(crate) async fn run(&self) -> Infallible {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            interval.tick().await;
            let outcome = self.send(&self.beat).await;
            let failure = outcome.err().map(|error| error.to_string());
            if failure != last {
                match &failure {
                    Some(error) => {
                        tracing::warn!(%error, url = %self.url, "the scheduler does not take heartbeats")
                    }
                    None => tracing::info!(url = %self.url, "registered with the scheduler"),
                }
                last = failure;
            }
        }
    }

    /// Says that this executor takes no new work. The scheduler would notice by itself a little later.
    pub(crate) async fn leave(&self) {
        if let Err(error) = self.send(&Heartbeat { draining: true, ..self.beat.clone() }).await {
            tracing::warn!(%error, "the scheduler was not told that this executor leaves");
        }
    }

    async fn send(&self, beat: &Heartbeat) -> Result<()> {
        let sent = self.client.post(&self.url).json(beat).send().await;
        let answer = sent.map_err(|error| Error::new(Code::Unreachable, error.to_string()))?;
        match answer.status() {
            StatusCode::CONFLICT => match answer.json::<Error>().await {
                Ok(refused) => Err(refused),
                Err(error) => Err(Error::new(Code::ExternalFailure, error.to_string())),
            },
            status if status.is_success() => Ok(()),
            status => Err(Error::new(Code::ExternalFailure, format!("HTTP {status}"))),
        }
    }
}
