//! Which statement runs next: a queue with limits in front of the engines.
//!
//! ```text
//!                 ┌─ light ─▶ waiting ─▶ many slots ────────▶ engine, on the main threads
//! job ─▶ Gate ────┤
//!                 └─ heavy ─▶ waiting ─▶ one slot per core ─▶ engine; in this process: on Background's threads,
//!                                                             which yield to the main ones
//! ```
//! Within a lane users take turns: first the one with the fewest jobs running, then the one that was given the
//! least so far. [`Queue`] decides, without a clock or a lock; [`Gate`] lets jobs wait for its decisions.

mod background;
mod gate;
mod queue;

pub use background::Background;
pub use gate::{Gate, Limits, Permit};
pub use queue::{Lane, Priority, Request};

use queue::{Queue, Slots, Ticket};
