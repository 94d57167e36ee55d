//! The options of `connector = 'kafka'`.

use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_core::connector::resolve_secret;
use tidemill_core::{Code, Error, OptionSpec, Options, Result};

const PREFIX: &str = "properties.";
const SERVERS: &str = "properties.bootstrap.servers";

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec { name: "topic", required: true, default: None, doc: "the topic to read" },
    OptionSpec {
        name: SERVERS,
        required: true,
        default: None,
        doc: "brokers to begin with, as `host:port`, separated by commas",
    },
    OptionSpec {
        name: "scan.startup.mode",
        required: false,
        default: Some("earliest"),
        doc: "where a new pipeline begins: `earliest` or `latest`",
    },
    OptionSpec {
        name: "read_timeout_secs",
        required: false,
        default: Some("30"),
        doc: "seconds without any progress after which a read fails",
    },
];

/// Settings on which exactly-once rests, and their values.
const FIXED: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    // An offset that is gone is an error to be told, not a place to jump away from.
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("allow.auto.create.topics", "false"),
];

/// Settings for whole partitions at full speed; a statement may set its own.
const TUNED: &[(&str, &str)] = &[
    ("client.id", "tidemill"),
    // Needed by librdkafka to assign partitions; no group is joined.
    ("group.id", "tidemill"),
    ("fetch.message.max.bytes", "8388608"),
    ("queued.min.messages", "200000"),
    ("queued.max.messages.kbytes", "32768"),
    // How long fetching pauses when the local queue is full: a second by default.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
    ("fetch.wait.max.ms", "100"),
    ("check.crcs", "false"),
    ("socket.nagle.disable", "true"),
    ("topic.metadata.refresh.interval.ms", "30000"),
];

/// Keys that go to librdkafka as they are.
pub fn is_passthrough(key: &str) -> bool {
    key.starts_with(PREFIX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Startup {
    Earliest,
    Latest,
}

/// Everything that a source needs, checked.
#[derive(Clone, Debug)]
pub(super) struct KafkaOptions {
    pub topic: String,
    pub servers: String,
    pub startup: Startup,
    pub read_timeout: Duration,
    pub client: ClientConfig,
    /// The options as given, secrets still references: equal keys mean interchangeable clients.
    pub identity: String,
}

impl KafkaOptions {
    pub(super) fn new(given: &BTreeMap<String, String>) -> Result<Self> {
        let options = Options::new("kafka", given, OPTIONS, is_passthrough)?;
        let startup = match options.require("scan.startup.mode")?.as_str() {
            "earliest" => Startup::Earliest,
            "latest" => Startup::Latest,
            other => {
                let message = format!("connector `kafka`: option `scan.startup.mode` is `{other}`");
                return Err(Error::new(Code::BadOption, message).hint("expected `earliest` or `latest`"));
            }
        };
        let seconds = options.parse::<u64>("read_timeout_secs", "a number of seconds above 0")?;
        let seconds = seconds.filter(|seconds| *seconds > 0).ok_or_else(|| {
            Error::new(Code::BadOption, "connector `kafka`: option `read_timeout_secs` is 0")
                .hint("expected a number of seconds above 0")
        })?;
        Ok(Self {
            topic: options.require("topic")?,
            servers: options.require(SERVERS)?,
            startup,
            read_timeout: Duration::from_secs(seconds),
            client: client_config(given)?,
            identity: given.iter().map(|(key, value)| format!("{key}={value}\n")).collect(),
        })
    }
}

fn client_config(given: &BTreeMap<String, String>) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    for (key, value) in TUNED {
        config.set(*key, *value);
    }
    for (key, value) in given {
        let Some(property) = key.strip_prefix(PREFIX) else { continue };
        if let Some((_, ours)) = FIXED.iter().find(|(fixed, _)| *fixed == property) {
            let message = format!("connector `kafka`: `{key}` cannot be set; it is always `{ours}`");
            return Err(Error::new(Code::BadOption, message).hint("leave it out"));
        }
        config.set(property, resolve_secret(value)?);
    }
    for (key, value) in FIXED {
        config.set(*key, *value);
    }
    // Checks every key and value without a client and so without a connection.
    config.create_native_config().map_err(|error| super::error::configuration(&error))?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    const MINIMAL: [(&str, &str); 2] = [("topic", "t"), (SERVERS, "localhost:9092")];

    #[test]
    fn names_every_missing_option() {
        let error = KafkaOptions::new(&given(&[])).unwrap_err();
        assert_eq!(error.code, Code::BadOption);
        assert!(error.message.contains("missing option `topic`"), "{error}");
        assert!(error.message.contains("missing option `properties.bootstrap.servers`"), "{error}");
    }

    #[test]
    fn passes_properties_on_and_keeps_ours() {
        let mut options = given(&MINIMAL);
        options.insert("properties.client.id".to_owned(), "mine".to_owned());
        let options = KafkaOptions::new(&options).unwrap();
        assert_eq!(options.client.get("client.id"), Some("mine"));
        assert_eq!(options.client.get("isolation.level"), Some("read_committed"));
        assert_eq!(options.startup, Startup::Earliest);
        assert_eq!(options.read_timeout, Duration::from_secs(30));
    }

    #[test]
    fn refuses_what_exactly_once_rests_on() {
        let mut options = given(&MINIMAL);
        options.insert("properties.enable.auto.commit".to_owned(), "true".to_owned());
        let error = KafkaOptions::new(&options).unwrap_err();
        assert_eq!(error.code, Code::BadOption);
        assert!(error.message.contains("always `false`"), "{error}");
    }

    #[test]
    fn names_a_property_that_librdkafka_does_not_know() {
        let mut options = given(&MINIMAL);
        options.insert("properties.securty.protocol".to_owned(), "SSL".to_owned());
        let error = KafkaOptions::new(&options).unwrap_err();
        assert_eq!(error.code, Code::BadOption);
        assert!(error.message.contains("securty.protocol"), "{error}");
    }

    #[test]
    fn refuses_a_mode_and_a_timeout_that_it_does_not_know() {
        for (key, value) in [("scan.startup.mode", "newest"), ("read_timeout_secs", "0")] {
            let mut options = given(&MINIMAL);
            options.insert(key.to_owned(), value.to_owned());
            let error = KafkaOptions::new(&options).unwrap_err();
            assert_eq!(error.code, Code::BadOption);
            assert!(error.message.contains(key), "{error}");
        }
    }
}
