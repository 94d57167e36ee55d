//! Control stores: where specs, intents and pointers are kept.
//!
//! ```text
//! pipelines, loads, catalog ─▶ dyn Journal ─▶ RedbJournal: one file, one process
//! ```
//! [`tidemill_core::Journal`] is the contract: durable when it returns, compare-and-set, fencing.

mod fault;
mod redb_journal;

pub use redb_journal::RedbJournal;
