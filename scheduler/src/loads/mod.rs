//! Scheduled loads: a query once per interval of a cron schedule, into a sink, each row once.
//!
//! ```text
//! cron ─▶ interval [previous fire, this fire) ─▶ run
//!                                                 │ 1 intended    journal `load_run/{load}/{run}`
//!                                                 │ 2 staged      query writes; one manifest, put-if-absent
//!                                                 │ 3 committed   Sink::commit, idempotent by (load, run)
//!                                                 ▼ 4 reconciled  rows staged = rows that the sink counts
//! ```
//! It is the epoch protocol with an interval in the place of offsets. What is loaded is a set of intervals;
//! what is due, or what `RUN LOAD` is asked for, is loaded less that set, so no time is loaded twice.
//!
//! A load has one run open at a time. A run that failed before it was staged left nothing behind: its interval
//! is due again under a new number. A run that was staged only goes forward, and no later run passes it,
//! because a sink takes the runs of a load in growing order.
//!
//! [`schedule`] and [`run`] decide and are pure; [`driver`] acts for one load; [`service`] is the handle.

mod book;
mod clock;
mod driver;
mod manifest;
pub mod run;
pub mod schedule;
mod service;
mod spec;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use clock::{Clock, SystemClock};
pub use run::{Failure, Origin, Phase, RunRecord};
pub use schedule::{Interval, Schedule};
pub use service::{Loads, LoadsOptions, RunOutcome, RunQuery};
pub use spec::{Load, LoadSpec, Retries, ScheduleSpec};
