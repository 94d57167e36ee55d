//! The streaming planner: from a streaming table's SELECT to the plan of one epoch.
//!
//! ```text
//! SQL ─▶ windows rewritten ─▶ logical plan ─▶ shape check ─▶ physical plan ─▶ remember (engine) ─▶ WriteExec
//!                                 │ the source is a table whose scan is IngestExec over this epoch's ranges
//! ```
//! Planning takes a few milliseconds and is done anew for every try of every epoch: nothing of a try outlives
//! it.

mod definition;
mod planner;
mod provider;
mod shape;

pub use definition::StreamingDefinition;
pub use planner::{EpochInput, EpochPlan, check_definition, explain_definition, plan_epoch, sources};
