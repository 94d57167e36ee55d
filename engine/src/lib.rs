//! What runs: sessions, operators, the codec, keyed state, and the [`Engine`] trait with its in-process and
//! pipelined implementations.
//!
//! What it is not: it knows no SQL text, no schedule and no connector by name.

pub mod build_sides;
mod change;
pub mod codec;
pub mod cooperative;
pub mod decode;
mod dictionary;
mod dynamic_filters;
mod engine;
pub mod epoch;
mod error;
pub mod exec;
pub mod expected;
pub mod explicit_order;
pub mod functions;
mod guard;
mod in_process;
mod lake;
pub mod maintenance;
pub mod memory;
pub mod object_stores;
pub mod pipelined;
pub mod priority;
pub mod scan;
mod services;
pub mod session;
pub mod stages;
pub mod travel;
pub mod wire_error;
pub mod zorder;

pub use change::{Alter, Change, LakeFile, LakeSnapshot, Reads};
pub use engine::{Engine, EngineKind, Execution, JobKind, JobSpec, Progress};
pub use error::{classify, from_datafusion, to_datafusion};
pub use guard::guard;
pub use in_process::InProcess;
pub use lake::{LakeFormat, TableDraft, TableNotes, TableOptions, TableVersion};
pub use maintenance::Maintenance;
pub use scan::DataCache;
pub use services::Services;
