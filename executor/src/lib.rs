//! What works: one process that is a worker of the pipelined engine and an executor of the staged one, under
//! one memory budget and one registration.
//!
//! ```text
//!              ┌─▶ WorkerServer (own threads) ─┐
//! [`run`] ─────┼─▶ Ballista executor ──────────┼─▶ one RuntimeEnv: memory, spill, object stores
//!              └─▶ heartbeats to the scheduler └─▶ one Services: connectors, state cache
//! ```
//! What it is not: it plans nothing and decides nothing.

mod connections;
mod engine;
mod heartbeat;
mod run;
mod staged;

pub use run::run;
