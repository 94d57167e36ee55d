//! Pipelines: streaming tables kept up to date, epoch by epoch.
//!
//! ```text
//! Pipelines (service) ─ one Driver a pipeline ─┬─ Ledger   journal and manifests: what is written down
//!                                              ├─ Runner   one try of an epoch: plan, engine, reports
//!                                              └─ Sinks    commit by (pipeline, epoch)
//! ```
//! What to do next is decided by the pure functions of `tidemill_core::epoch`; here is the I/O around them.

mod driver;
mod ledger;
mod record;
mod runner;
mod service;

pub use record::{EpochRecord, PipelineRecord, Status};
pub use runner::{EngineRunner, EpochRunner};
pub use service::{PipelineView, Pipelines};
