//! Lets jobs wait until the queue lets them run.

use super::{Lane, Queue, Request, Slots, Ticket};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tokio::sync::oneshot;

/// How many jobs run, and how many wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub light: usize,
    /// Most that wait in each lane.
    pub queue: usize,
}

/// What is asked anew for each decision: slots of heavy jobs, and whether memory is left for one more.
type Heavy = Box<dyn Fn() -> (usize, bool) + Send + Sync>;

/// The door to the engines.
pub struct Gate {
    limits: Limits,
    heavy: Heavy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A place among those who run. Dropping it gives the place to the next.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    ticket: Ticket,
}

impl Gate {
    pub fn new(limits: Limits, heavy: impl Fn() -> (usize, bool) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { limits, heavy: Box::new(heavy), state: Mutex::default() })
    }

    /// Waits for a place. Dropping the future gives it up.
    pub async fn enter(self: &Arc<Self>, request: &Request) -> Result<Permit> {
        let (started, mut starts) = oneshot::channel();
        let permit = {
            let mut state = self.state.lock();
            let ticket = state.queue.enter(request, self.limits.queue).ok_or_else(|| self.full())?;
            state.waiting.insert(ticket, started);
            self.start(&mut state);
            // Made while the lock is held, so it must not be dropped here: its end takes the lock.
            Permit { gate: self.clone(), ticket }
        };
        if starts.try_recv().is_err() {
            starts.await.map_err(|_| Error::internal("the queue forgot a job"))?;
        }
        Ok(permit)
    }

    /// Waiting and running.
    pub fn counts(&self, lane: Lane) -> (usize, usize) {
        self.state.lock().queue.counts(lane)
    }

    fn start(&self, state: &mut State) {
        let (heavy, memory) = (self.heavy)();
        for ticket in state.queue.start(Slots { light: self.limits.light, heavy, memory }) {
            if let Some(started) = state.waiting.remove(&ticket) {
                // Who does not listen any more drops the permit, which starts the next.
                let _ = started.send(());
            }
        }
        for (lane, name) in [(Lane::Light, "light"), (Lane::Heavy, "heavy")] {
            let (waiting, running) = state.queue.counts(lane);
            metrics::gauge!("tidemill_jobs_waiting", "lane" => name).set(waiting as f64);
            metrics::gauge!("tidemill_jobs_running", "lane" => name).set(running as f64);
        }
    }

    fn full(&self) -> Error {
        Error::new(Code::TooManyJobs, format!("{} statements wait already", self.limits.queue))
            .hint("try again a little later; tidemill.jobs shows what runs and waits")
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.waiting.remove(&self.ticket);
        state.queue.leave(self.ticket);
        self.gate.start(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Priority;
    use futures::FutureExt;

    fn gate(queue: usize) -> Arc<Gate> {
        Gate::new(Limits { light: 2, queue }, || (1, true))
    }

    fn heavy() -> Request {
        Request { user: "ann".into(), lane: Lane::Heavy, priority: Priority::Normal, again: false }
    }

    #[tokio::test]
    async fn the_next_starts_when_a_permit_is_dropped() {
        let (gate, heavy) = (gate(10), heavy());
        let first = gate.enter(&heavy).await.unwrap();
        let mut second = Box::pin(gate.enter(&heavy));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(gate.counts(Lane::Heavy), (1, 1));
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(gate.counts(Lane::Heavy), (0, 1));
        drop(second);
        assert_eq!(gate.counts(Lane::Heavy), (0, 0));
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_the_queue() {
        let (gate, heavy) = (gate(1), heavy());
        let _first = gate.enter(&heavy).await.unwrap();
        let mut second = Box::pin(gate.enter(&heavy));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(gate.enter(&heavy).await.unwrap_err().code, Code::TooManyJobs);
        drop(second);
        assert_eq!(gate.counts(Lane::Heavy), (0, 1));
    }
}
