//! Between clients and engines: sessions, admission and the choice of the engine.

pub mod api;
pub mod params;
