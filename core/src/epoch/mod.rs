//! The epoch protocol: exactly once, as pure functions over facts.
//!
//! ```text
//! 1 intend   next_intent ─▶ journal                        (fenced, compare-and-set)
//! 2 run      tasks write files, report what they wrote
//! 3 decide   assemble ─▶ checkpoint store                  (put-if-absent; from here only forward)
//! 4 commit   every participant, idempotent by (pipeline, epoch)
//! 5 advance  the journal says that the epoch is done
//!
//! after any doubt: Facts ─▶ recover ─▶ Action: the step to go on with
//! ```
//! Everything here is a function from facts to a decision; whoever drives the protocol does the I/O. It
//! needs to remember nothing: after a crash, or after a call whose outcome is not known, it gathers the
//! [`Facts`] and does what [`recover`] says.

mod decide;
mod plan;
mod recover;
mod types;
mod watermark;

pub use decide::{INGEST, assemble};
pub use plan::{Planning, drain_intent, is_drained, next_intent};
pub use recover::{Action, Facts, recover};
pub use types::{
    Counts, DEAD_LETTERS, Intent, Manifest, Participant, StateFile, StateRef, TABLE, TaskReport,
};
pub use watermark::advance_watermark;
