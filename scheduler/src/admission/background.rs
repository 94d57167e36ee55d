//! The threads of heavy queries in this process. The system runs them when the others leave time, so that a point
//! query is answered while a heavy one computes on every core.

use std::sync::atomic::{AtomicUsize, Ordering};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tidemill_core::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};

/// Of 0 to 99; on Linux it is a niceness of 15, a thirtieth of the weight of an ordinary thread.
const PRIORITY: u8 = 10;

/// A runtime whose threads yield to all others of the process.
#[derive(Debug)]
pub struct Background {
    handle: Handle,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
}

impl Background {
    pub fn new(threads: usize) -> Result<Self> {
        let started = AtomicUsize::new(0);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("tidemill-heavy")
            .on_thread_start(move || yield_to_others(started.fetch_add(1, Ordering::Relaxed) == 0))
            .enable_all()
            .build()
            .map_err(|error| Error::internal(format!("no threads for heavy queries: {error}")))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Where the system refuses, the threads are ordinary ones.
fn yield_to_others(first: bool) {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    let Ok(value) = ThreadPriorityValue::try_from(PRIORITY) else { return };
    let priority = ThreadPriority::Crossplatform(value);
    let set = set_thread_priority_and_policy(thread_native_id(), priority, policy);
    if let (Err(error), true) = (set, first) {
        tracing::warn!(?error, "threads of heavy queries keep their priority");
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A runtime must not wait for its threads where others are polled.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_are_nicer_than_ours() {
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let (_, fields) = stat.rsplit_once(')').unwrap();
            // Field 19 of proc_pid_stat(5); the first two are cut off.
            fields.split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
        };
        let here = niceness();
        let background = Background::new(1).unwrap();
        let there = background.handle().spawn(async move { niceness() }).await.unwrap();
        assert!(there > here && there >= 15, "{there} against {here}");
    }
}
