//! What the server answered instead of rows.

use arrow_flight::error::FlightError;
use datafusion::error::DataFusionError;
use std::fmt;
use tonic::Status;

/// The server's error; its text begins with the code that the server's documentation explains (`TM-1002: …`).
#[derive(Clone, Debug)]
pub struct ServerError {
    pub status: Status,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status.message())
    }
}

impl std::error::Error for ServerError {}

pub(crate) fn refused(status: Status) -> DataFusionError {
    DataFusionError::External(Box::new(ServerError { status }))
}

pub(crate) fn broken(error: FlightError) -> DataFusionError {
    match error {
        FlightError::Tonic(status) => refused(*status),
        FlightError::Arrow(error) => error.into(),
        other => DataFusionError::External(Box::new(other)),
    }
}

/// What this crate cannot do, and what can be done about it.
pub(crate) fn unsupported(what: impl fmt::Display, hint: &str) -> DataFusionError {
    DataFusionError::NotImplemented(format!("{what}; {hint}"))
}
