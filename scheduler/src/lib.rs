//! What decides: control store, pipelines, loads, jobs, the choice of the engine, and the gateway.

pub mod frontend;
pub mod gateway;
