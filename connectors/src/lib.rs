//! stub

pub mod clickhouse;
pub mod kafka;
