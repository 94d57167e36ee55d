//! The words that every Tidemill crate shares.
//!
//! What it is: identifiers, one structural [`Error`], the configuration, and the contracts between the
//! parts: [`Source`], [`Sink`], [`Journal`], and the epoch protocol as pure functions ([`epoch`]).
//! What it is not: it knows no query plan, no network and no connector.
//!
//! ```text
//! Source ──splits, positions──▶ epoch::Intent ──run──▶ epoch::Manifest ──▶ Sink::commit(job, run)
//!                                   │                       │
//!                                Journal              checkpoint store
//! ```
//!
//! ```
//! use tidemill_core::{Code, Error};
//!
//! let error = Error::new(Code::UnknownColumn, "no column `usr_id`").hint("did you mean `user_id`?");
//! assert_eq!(error.to_string(), "TM-1002: no column `usr_id`; did you mean `user_id`?");
//! ```

pub mod config;
pub mod connector;
pub mod epoch;
mod error;
mod id;
mod journal;
mod sink;
mod source;
pub mod store;

pub use connector::{ConnectorRegistry, OptionSpec, Options};
pub use error::{Blame, Code, Error, Result, Retry};
pub use id::{Epoch, ExecutorId, FencingToken, JobId, PipelineId, SplitId};
pub use journal::{Expect, Journal, Versioned};
pub use sink::{Commit, Sink, SinkCapabilities, SinkSpec, SinkWriter, WriteScope, Written};
pub use source::{
    Available, Positions, RawBatch, Source, SourceCapabilities, SourceSpec, SplitRange, SplitReader,
};
