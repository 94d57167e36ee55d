//! stub

pub mod clickhouse;
pub mod delta;
pub mod kafka;
