//! The epoch protocol under seeded faults, without a clock, a network or a disk.
//!
//! ```text
//! seed ─▶ random hand ─┬─▶ Leader::step    one I/O of the driver loop; decisions by the crate's pure functions
//!                      ├─▶ zombies' steps  leaders that were deposed and do not know it
//!                      ├─▶ crash           the leader is dropped between two steps; a new one begins
//!                      └─▶ World           more records, new splits; errors without and errors after effect
//!                             │
//!              end without faults, drain ─▶ oracle: compares with a direct computation
//! ```
//! `TIDEMILL_SIM_SEEDS` is the number of seeds (10,000), `TIDEMILL_SIM_FIRST` the first one (0), so that a seed
//! that failed is run alone with `TIDEMILL_SIM_FIRST=<seed> TIDEMILL_SIM_SEEDS=1`.
//!
//! It proves that it can fail: each `Flaw` breaks one rule of the protocol, and has a test that demands that
//! the oracle sees it.

#[cfg(test)]
mod driver;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod world;
