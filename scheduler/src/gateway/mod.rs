//! What clients connect to: Flight SQL and HTTP, both over [`Frontend`](crate::frontend::api::Frontend).
//!
//! What it is not: it plans nothing and runs nothing.
//!
//! ```text
//! client ──GetFlightInfo(sql)──▶ Frontend::execute ──▶ Answer, kept under its job id
//!        ◀──schema, ticket────
//!        ──DoGet(ticket)───────▶ the answer's stream, encoded as the client takes it
//! ```
//!
//! A session belongs to a bearer token, or to the connection when there is none, and ends with it.

mod actions;
mod auth;
mod connection;
mod flight;
pub mod http;
mod ingest;
mod metadata;
mod opened;
mod options;
mod poll;
mod prepared;
mod results;
mod server;
mod split;
mod sql_info;
mod statement;
mod status;
mod tls;
mod wire;

pub use actions::PROGRESS_ACTION;
pub use auth::Credentials;
pub use flight::RUN_ON_FETCH_HEADER;
pub use results::JobNote;
pub use server::serve_flight;
pub use status::{ERROR_HEADER, to_error, to_status};
pub use tls::{FlightTls, use_aws_lc};
