//! The epoch as operators see it: its scope, the reports they hand in, and their keyed state.
//!
//! ```text
//! EpochScope ──▶ operator ──▶ ReportDesk (same process) or report file (another process) ──▶ driver
//!                  │  ▲
//!                  ▼  │
//!               StateStore: base and delta files per bucket, StateCache in front
//! ```

mod report;
mod rewrite;
mod scope;
mod state;

pub use report::ReportDesk;
pub use rewrite::{Memory, Remembering, remember};
pub use scope::{EpochScope, EventTime, WindowSize, pipeline_folder, to_millis};
pub use state::{StateCache, StateStore, read_state, write_state};
