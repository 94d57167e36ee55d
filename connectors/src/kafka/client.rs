//! What every Kafka client of ours has in common: its memory of what went wrong, and its end.

use super::error::{self, Meaning};
use super::options::KafkaOptions;
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, config::FromClientConfigAndContext};
use tidemill_core::Result;

pub(super) type Consumer = BaseConsumer<Memory>;

/// Keeps the last fault that librdkafka reported by itself. Its calls only ever say "timed out".
#[derive(Debug, Default)]
pub(super) struct Memory {
    fault: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Memory {
    fn remember(&self, code: RDKafkaErrorCode, text: &str) {
        let mut fault = self.fault.lock();
        // After the reason comes "all brokers down", which says less, and after a refusal a time-out.
        let keep = fault.as_ref().is_some_and(|(old, _)| {
            code == RDKafkaErrorCode::AllBrokersDown || error::meaning(*old) == Meaning::Denied
        });
        if !keep {
            *fault = Some((code, text.to_owned()));
        }
    }

    pub(super) fn take(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.fault.lock().take()
    }
}

impl ClientContext for Memory {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "tidemill::kafka", ?level, facility, "{message}");
        // The batch calls turn error events into log lines; these name the reason.
        let lower = message.to_lowercase();
        if lower.contains("authentication") {
            self.remember(RDKafkaErrorCode::Authentication, message);
        } else if lower.contains("ssl handshake failed") {
            self.remember(RDKafkaErrorCode::SSL, message);
        } else if lower.contains("connect to") && lower.contains("failed") {
            self.remember(RDKafkaErrorCode::BrokerTransportFailure, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidemill::kafka", %error, reason);
        self.remember(error::code_of(&error), reason);
    }
}

impl ConsumerContext for Memory {}

pub(super) fn consumer(options: &KafkaOptions) -> Result<Consumer> {
    BaseConsumer::from_config_and_context(&options.client, Memory::default())
        .map_err(|error| error::configuration(&error))
}

/// Drops a client, which can take long or hang (librdkafka waits for its threads), where nobody waits.
pub(super) fn close<T: Send + 'static>(client: T) {
    // Without a thread to be had, the client is dropped here, by the closure's own end.
    if let Err(error) = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(client))
    {
        tracing::warn!(%error, "no thread to close a Kafka client");
    }
}
