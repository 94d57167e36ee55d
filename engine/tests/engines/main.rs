//! The engines on one machine: workers on loopback, operators made for the purpose.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod everything;
mod keyed;
mod pipelined;
mod toys;
