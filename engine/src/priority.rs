//! Threads that compute yield to those that answer: point queries, heartbeats, a scheduler on the same machine.

use std::sync::atomic::{AtomicBool, Ordering};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Of 0 to 99; on Linux it is a niceness of 15, a thirtieth of the weight of an ordinary thread. For threads beside
/// which the same process answers.
pub const BACKGROUND: u8 = 10;
/// A niceness of 5, a third of the weight. For a process that has the machine to itself, or shares it.
pub const WORKER: u8 = 36;

static TOLD: AtomicBool = AtomicBool::new(false);

/// The calling thread has less weight than others from here on. Where the system refuses, it stays an ordinary one.
pub fn yield_to_others(priority: u8) {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    let Ok(value) = ThreadPriorityValue::try_from(priority) else { return };
    let priority = ThreadPriority::Crossplatform(value);
    let set = set_thread_priority_and_policy(thread_native_id(), priority, policy);
    if let Err(error) = set
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(?error, "threads of queries keep their priority");
    }
}

/// Of the calling thread, by field 19 of proc_pid_stat(5).
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub fn niceness() -> i32 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // The first two fields are cut off.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields.split_whitespace().nth(16).and_then(|field| field.parse().ok()).unwrap_or_default()
}
