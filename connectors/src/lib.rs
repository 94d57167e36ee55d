//! Everything that Tidemill reads from and writes to, each in a folder of its own.
//!
//! ```text
//! SourceSpec { connector: "kafka", … } ─▶ registry ─▶ KafkaSource
//! SinkSpec { connector: "delta", … }   ─▶ registry ─▶ DeltaSink
//! ```
//! What it is not: it knows no SQL, no schedule and no process of the cluster. A new connector is a new folder
//! and a line in [`registry`].

pub mod clickhouse;
pub mod delta;
pub mod files;
pub mod kafka;

use tidemill_core::ConnectorRegistry;
use tidemill_core::config::Config;

/// All connectors of this build.
pub fn registry(config: &Config) -> ConnectorRegistry {
    ConnectorRegistry::new(config.clone())
        .with_source("kafka", kafka::source)
        .with_sink("clickhouse", clickhouse::sink)
        .with_sink("delta", delta::sink)
        .with_sink("files", files::sink)
}
