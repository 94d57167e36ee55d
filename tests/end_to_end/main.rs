//! The whole system, as processes: the binary, Apache Kafka, an S3 store.
//!
//! Tests that need a service which is not there say `SKIPPED` with its name; with
//! `TIDEMILL_REQUIRE_SERVICES=1` that is a failure (see `deploy/test`).

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod changes;
mod chaos;
mod cluster;
mod interop;
mod local;
mod race;
