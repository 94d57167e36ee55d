//! The decisions, pure: from what waits, what runs and how many slots there are to what starts.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::str::FromStr;
use tidemill_core::{Code, Error, Result};

/// A job that so many younger ones of the same user have overtaken is next, whatever its priority; one that is
/// behind all users waits no longer once so many younger ones of whomever have overtaken it.
const OVERTAKEN_AT_MOST: u32 = 8;

/// By what a job costs: light ones do not wait for heavy ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    Light,
    Heavy,
}

/// `SET priority = …`. It orders the jobs of one user, and says how much of the user's turn a job costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Behind the jobs of all users: work that nobody asked for. No session can take it.
    Last,
    Low,
    #[default]
    Normal,
    High,
}

impl Priority {
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Last => "last",
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }

    /// Users who run nothing but high priority get four turns for one of those who run low priority.
    fn charge(self) -> u64 {
        match self {
            Priority::Last | Priority::Low => 4,
            Priority::Normal => 2,
            Priority::High => 1,
        }
    }
}

impl FromStr for Priority {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_lowercase().as_str() {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            other => Err(Error::new(Code::BadOption, format!("no priority `{other}`"))
                .suggest(other, ["low", "normal", "high"])),
        }
    }
}

/// A job's place, waiting or running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

#[derive(Clone, Debug)]
pub struct Request {
    pub user: String,
    pub lane: Lane,
    pub priority: Priority,
    /// A job that has run already and left its slot for a while is never refused.
    pub again: bool,
}

/// What the decisions depend on besides the queue itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    pub(super) light: usize,
    pub(super) heavy: usize,
    /// Whether there is memory for one more heavy job. Without any running one it is not asked for.
    pub(super) memory: bool,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    user: String,
    priority: Priority,
    overtaken: u32,
}

impl Waiting {
    /// To every user, but not for ever.
    fn yields(&self) -> bool {
        self.priority == Priority::Last && self.overtaken < OVERTAKEN_AT_MOST
    }
}

#[derive(Debug, Default)]
struct User {
    running: usize,
    waiting: usize,
    charged: u64,
}

#[derive(Debug, Default)]
struct LaneQueue {
    /// In the order of arrival.
    waiting: Vec<Waiting>,
    running: HashMap<Ticket, String>,
    /// Those who have anything waiting or running.
    users: HashMap<String, User>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    light: LaneQueue,
    heavy: LaneQueue,
    last: u64,
}

impl Queue {
    /// A place in the queue, if not more than `length` wait in the lane.
    pub(super) fn enter(&mut self, request: &Request, length: usize) -> Option<Ticket> {
        let next = Ticket(self.last + 1);
        let lane = self.lane(request.lane);
        if lane.waiting.len() >= length && !request.again {
            return None;
        }
        lane.enter(next, request);
        self.last += 1;
        Some(next)
    }

    /// The jobs that start now, in order.
    pub(super) fn start(&mut self, slots: Slots) -> Vec<Ticket> {
        let mut started = Vec::new();
        while self.light.running.len() < slots.light {
            let Some(ticket) = self.light.start() else { break };
            started.push(ticket);
        }
        while self.heavy.running.len() < slots.heavy && (slots.memory || self.heavy.running.is_empty()) {
            let Some(ticket) = self.heavy.start() else { break };
            started.push(ticket);
        }
        started
    }

    /// The job has ended, or waits no longer.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.light.leave(ticket);
        self.heavy.leave(ticket);
    }

    /// Waiting and running.
    pub(super) fn counts(&self, lane: Lane) -> (usize, usize) {
        let lane = match lane {
            Lane::Light => &self.light,
            Lane::Heavy => &self.heavy,
        };
        (lane.waiting.len(), lane.running.len())
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneQueue {
        match lane {
            Lane::Light => &mut self.light,
            Lane::Heavy => &mut self.heavy,
        }
    }
}

impl LaneQueue {
    fn enter(&mut self, ticket: Ticket, request: &Request) {
        // Who was away has not saved up turns.
        let least = self.users.values().map(|user| user.charged).min().unwrap_or(0);
        let new = || User { charged: least, ..User::default() };
        self.users.entry(request.user.clone()).or_insert_with(new).waiting += 1;
        let (user, priority) = (request.user.clone(), request.priority);
        self.waiting.push(Waiting { ticket, user, priority, overtaken: 0 });
    }

    fn start(&mut self) -> Option<Ticket> {
        let at = self.next()?;
        let started = self.waiting.remove(at);
        for older in &mut self.waiting[..at] {
            if older.user == started.user || older.priority == Priority::Last {
                older.overtaken += 1;
            }
        }
        if let Some(user) = self.users.get_mut(&started.user) {
            user.waiting -= 1;
            user.running += 1;
            user.charged += started.priority.charge();
        }
        self.running.insert(started.ticket, started.user);
        Some(started.ticket)
    }

    /// First whose turn it is, then which of that user's jobs.
    fn next(&self) -> Option<usize> {
        let turn = |job: &Waiting| self.users.get(&job.user).map(|user| (user.running, user.charged));
        let first = self.waiting.iter().min_by_key(|job| (job.yields(), turn(job), job.ticket))?;
        let own = self.waiting.iter().enumerate().filter(|(_, job)| job.user == first.user);
        let rank = |job: &Waiting| match job.overtaken >= OVERTAKEN_AT_MOST {
            true => None,
            false => Some(std::cmp::Reverse(job.priority)),
        };
        own.min_by_key(|(_, job)| (rank(job), job.ticket)).map(|(at, _)| at)
    }

    fn leave(&mut self, ticket: Ticket) {
        let user = match self.running.remove(&ticket) {
            Some(user) => {
                self.users.entry(user.clone()).and_modify(|user| user.running -= 1);
                user
            }
            None => {
                let Some(at) = self.waiting.iter().position(|job| job.ticket == ticket) else { return };
                let user = self.waiting.remove(at).user;
                self.users.entry(user.clone()).and_modify(|user| user.waiting -= 1);
                user
            }
        };
        if self.users.get(&user).is_some_and(|user| user.running + user.waiting == 0) {
            self.users.remove(&user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Slots = Slots { light: 1, heavy: 1, memory: true };

    fn enter(queue: &mut Queue, user: &str, lane: Lane, priority: Priority) -> Ticket {
        let request = Request { user: user.to_owned(), lane, priority, again: false };
        queue.enter(&request, 100).unwrap()
    }

    fn heavy(queue: &mut Queue, user: &str) -> Ticket {
        enter(queue, user, Lane::Heavy, Priority::Normal)
    }

    /// Ends each job as soon as it has started, and gives the order.
    fn drain(queue: &mut Queue, slots: Slots) -> Vec<Ticket> {
        let mut order = Vec::new();
        loop {
            let started = queue.start(slots);
            if started.is_empty() {
                return order;
            }
            started.iter().for_each(|ticket| queue.leave(*ticket));
            order.extend(started);
        }
    }

    #[test]
    fn light_jobs_do_not_wait_for_heavy_ones() {
        let mut queue = Queue::default();
        let first = heavy(&mut queue, "ann");
        assert_eq!(queue.start(ONE), [first]);
        heavy(&mut queue, "ann");
        let point = enter(&mut queue, "ann", Lane::Light, Priority::Low);
        assert_eq!(queue.start(ONE), [point]);
        assert_eq!((queue.counts(Lane::Heavy), queue.counts(Lane::Light)), ((1, 1), (0, 1)));
    }

    #[test]
    fn one_user_with_many_jobs_does_not_hold_up_another() {
        let mut queue = Queue::default();
        let many: Vec<Ticket> = (0..5).map(|_| heavy(&mut queue, "ann")).collect();
        let few: Vec<Ticket> = (0..2).map(|_| heavy(&mut queue, "bob")).collect();
        let order = drain(&mut queue, ONE);
        assert_eq!(order, [many[0], few[0], many[1], few[1], many[2], many[3], many[4]]);
    }

    #[test]
    fn the_next_slot_is_for_whom_the_fewest_run() {
        let mut queue = Queue::default();
        let two = Slots { heavy: 2, ..ONE };
        let long: Vec<Ticket> = (0..3).map(|_| heavy(&mut queue, "ann")).collect();
        assert_eq!(queue.start(two), long[..2]);
        let short: Vec<Ticket> = (0..2).map(|_| heavy(&mut queue, "bob")).collect();
        queue.leave(long[0]);
        assert_eq!(queue.start(two), short[..1]);
        queue.leave(short[0]);
        assert_eq!(queue.start(two), short[1..]);
    }

    #[test]
    fn priorities_order_the_jobs_of_a_user_and_nobody_starves() {
        let mut queue = Queue::default();
        let low = enter(&mut queue, "ann", Lane::Heavy, Priority::Low);
        let high: Vec<Ticket> =
            (0..20).map(|_| enter(&mut queue, "ann", Lane::Heavy, Priority::High)).collect();
        let order = drain(&mut queue, ONE);
        assert_eq!(order[..8], high[..8]);
        assert_eq!(order[8], low);
    }

    #[test]
    fn high_priority_costs_less_of_a_users_turn() {
        let mut queue = Queue::default();
        for _ in 0..12 {
            enter(&mut queue, "ann", Lane::Heavy, Priority::High);
            enter(&mut queue, "bob", Lane::Heavy, Priority::Low);
        }
        let order = drain(&mut queue, ONE);
        let anns = order[..10].iter().filter(|ticket| ticket.0 % 2 == 1).count();
        assert_eq!(anns, 8, "four of ann's for one of bob's");
    }

    #[test]
    fn what_nobody_asked_for_is_behind_all_users_and_does_not_starve() {
        let mut queue = Queue::default();
        let last = enter(&mut queue, "upkeep", Lane::Heavy, Priority::Last);
        let anns: Vec<Ticket> = (0..3).map(|_| heavy(&mut queue, "ann")).collect();
        let bobs: Vec<Ticket> =
            (0..20).map(|_| enter(&mut queue, "bob", Lane::Heavy, Priority::Low)).collect();
        let order = drain(&mut queue, ONE);
        assert_eq!(order[..3], [anns[0], bobs[0], anns[1]]);
        assert_eq!(order[8], last, "eight others were before it");
    }

    #[test]
    fn a_full_queue_refuses_and_who_leaves_makes_room() {
        let mut queue = Queue::default();
        let request =
            Request { user: "ann".into(), lane: Lane::Heavy, priority: Priority::Normal, again: false };
        let first = queue.enter(&request, 2).unwrap();
        queue.enter(&request, 2).unwrap();
        assert!(queue.enter(&request, 2).is_none());
        assert!(queue.enter(&Request { again: true, ..request.clone() }, 2).is_some());
        assert!(queue.enter(&Request { lane: Lane::Light, ..request.clone() }, 2).is_some());
        queue.leave(first);
        assert_eq!(queue.counts(Lane::Heavy), (2, 0));
    }

    #[test]
    fn heavy_jobs_wait_for_memory_while_one_runs() {
        let mut queue = Queue::default();
        let short = Slots { heavy: 4, memory: false, ..ONE };
        let jobs: Vec<Ticket> = (0..3).map(|_| heavy(&mut queue, "ann")).collect();
        assert_eq!(queue.start(short), jobs[..1]);
        assert_eq!(queue.start(short), []);
        queue.leave(jobs[0]);
        assert_eq!(queue.start(short), jobs[1..2]);
        assert_eq!(queue.start(Slots { memory: true, ..short }), jobs[2..]);
    }
}
