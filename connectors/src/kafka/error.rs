//! librdkafka's errors in our words.

use super::options::KafkaOptions;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Rd};
use tidemill_core::{Code, Error};

/// What a code means for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The brokers may yet answer: wait until the time-out.
    Unreachable,
    Denied,
    NoTopic,
    PositionLost,
    Failed,
}

pub(super) fn meaning(code: Rd) -> Meaning {
    match code {
        Rd::BrokerTransportFailure
        | Rd::AllBrokersDown
        | Rd::Resolve
        | Rd::OperationTimedOut
        | Rd::RequestTimedOut
        | Rd::WaitingForCoordinator
        | Rd::BrokerNotAvailable
        | Rd::LeaderNotAvailable
        | Rd::NotLeaderForPartition
        | Rd::ReplicaNotAvailable
        | Rd::NetworkException
        | Rd::PreferredLeaderNotAvailable
        | Rd::OffsetNotAvailable
        | Rd::FencedLeaderEpoch
        | Rd::UnknownLeaderEpoch
        | Rd::KafkaStorageError => Meaning::Unreachable,
        Rd::Authentication
        | Rd::SSL
        | Rd::SaslAuthenticationFailed
        | Rd::UnsupportedSASLMechanism
        | Rd::TopicAuthorizationFailed
        | Rd::GroupAuthorizationFailed
        | Rd::ClusterAuthorizationFailed => Meaning::Denied,
        Rd::UnknownTopic | Rd::UnknownPartition | Rd::UnknownTopicOrPartition | Rd::InvalidTopic => {
            Meaning::NoTopic
        }
        Rd::OffsetOutOfRange | Rd::AutoOffsetReset | Rd::NoOffset | Rd::LogTruncation => {
            Meaning::PositionLost
        }
        _ => Meaning::Failed,
    }
}

/// A failure of one of the source's calls. `seen` is what the client itself has reported meanwhile: a
/// refused password, for one, shows to the caller only as a time-out.
pub(super) fn failure(options: &KafkaOptions, doing: &str, code: Rd, seen: Option<(Rd, String)>) -> Error {
    let (code, detail) = match seen {
        Some((seen, text)) if meaning(code) == Meaning::Unreachable => (seen, text),
        _ => (code, code.to_string()),
    };
    let KafkaOptions { topic, servers, .. } = options;
    match meaning(code) {
        Meaning::Unreachable => {
            Error::new(Code::Unreachable, format!("Kafka at {servers} does not answer ({doing}: {detail})"))
                .hint(format!("check that a broker listens at {servers} and that its advertised address can be reached from here"))
        }
        Meaning::Denied => {
            Error::new(Code::AccessDenied, format!("Kafka at {servers} refuses access to `{topic}` ({doing}: {detail})"))
                .hint("check properties.security.protocol, properties.sasl.* and the rights of the user")
        }
        Meaning::NoTopic => no_topic(options),
        Meaning::PositionLost => {
            Error::new(Code::PositionLost, format!("topic `{topic}` no longer has the records asked for ({doing}: {detail})"))
                .hint("the topic's retention is shorter than the pipeline's delay; raise it, and restart the pipeline from what is left")
        }
        Meaning::Failed => {
            Error::new(Code::ExternalFailure, format!("Kafka at {servers} failed for `{topic}` ({doing}: {detail})"))
        }
    }
}

pub(super) fn no_topic(options: &KafkaOptions) -> Error {
    let KafkaOptions { topic, servers, .. } = options;
    Error::new(Code::NotFound, format!("no topic `{topic}` at {servers}")).hint("create it first")
}

/// A property that librdkafka does not take.
pub(super) fn configuration(error: &KafkaError) -> Error {
    // librdkafka repeats the value in its description, which must not bring a secret to light.
    let secret = |key: &str| ["password", "secret", "key"].iter().any(|word| key.contains(word));
    let message = match error {
        KafkaError::ClientConfig(_, _, key, _) if secret(key) => {
            format!("connector `kafka`: property `{key}` is not valid")
        }
        KafkaError::ClientConfig(_, description, key, _) => {
            format!("connector `kafka`: property `{key}`: {description}")
        }
        other => format!("connector `kafka`: {other}"),
    };
    Error::new(Code::BadOption, message)
        .hint("`properties.*` takes the settings of librdkafka's CONFIGURATION.md")
}

/// The code inside, for those errors that have one.
pub(super) fn code_of(error: &KafkaError) -> Rd {
    error.rdkafka_error_code().unwrap_or(Rd::Fail)
}
