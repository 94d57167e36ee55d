//! Which executors there are.
//!
//! ```text
//! executor ── POST /v1/executors/heartbeat, every second ──▶ Executors ──▶ Members ──▶ engines
//! ```
//! The list lives in memory only: after a restart of the scheduler the next heartbeats fill it again.

mod http;
mod registry;

pub use http::router;
pub use registry::Executors;
