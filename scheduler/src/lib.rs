//! What decides: control store, pipelines, loads, jobs, the choice of the engine, and the gateway.

pub mod admission;
pub mod cluster;
pub mod engines;
pub mod frontend;
pub mod gateway;
pub mod journal;
pub mod loads;
mod maintenance;
pub mod pipelines;
pub mod staged;
