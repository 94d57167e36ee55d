//! The epoch protocol: exactly once, as pure functions over facts.
//!
//! ```text
//! 1 intend   ranges, watermarks, state version ─▶ journal           (fenced, compare-and-set)
//! 2 run      tasks write files, report what they wrote
//! 3 decide   one manifest, put-if-absent ─▶ checkpoint store        (from here only forward)
//! 4 commit   every participant, idempotent by (pipeline, epoch)
//! 5 advance  the journal says that the epoch is done
//! ```
//! Everything here is a function from facts to a decision; whoever drives the protocol does the I/O.

mod types;

pub use types::{
    Counts, DEAD_LETTERS, Intent, Manifest, Participant, StateFile, StateRef, TABLE, TaskReport,
};
