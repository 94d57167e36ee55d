//! What runs: sessions, operators, the codec, keyed state, and the [`Engine`] trait with its in-process and
//! pipelined implementations.
//!
//! What it is not: it knows no SQL text, no schedule and no connector by name.

pub mod decode;
pub mod codec;
mod engine;
pub mod epoch;
mod error;
pub mod exec;
mod lake;
mod services;

pub use engine::{Engine, EngineKind, Execution, JobKind, JobSpec, Progress};
pub use error::{from_datafusion, to_datafusion};
pub use lake::{LakeFormat, TableOptions};
pub use services::Services;
