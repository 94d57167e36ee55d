//! The executors that were heard of lately.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tidemill_core::{Code, Error, ExecutorId, Result};
use tidemill_engine::pipelined::{Heartbeat, Member, Members};
use tidemill_engine::session;

#[derive(Debug)]
pub struct Executors {
    /// One that is silent for longer is lost.
    timeout: Duration,
    seen: Mutex<HashMap<ExecutorId, (Member, Instant)>>,
}

impl Executors {
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, seen: Mutex::default() }
    }

    /// Takes a heartbeat. An executor that would understand plans differently is refused.
    pub fn beat(&self, beat: Heartbeat) -> Result<()> {
        self.beat_at(beat, Instant::now())
    }

    fn beat_at(&self, beat: Heartbeat, now: Instant) -> Result<()> {
        if beat.build != session::build() || beat.fingerprint != session::registry_fingerprint() {
            let message = format!(
                "executor {} is build {} ({}), this scheduler is {} ({})",
                beat.id,
                beat.build,
                beat.fingerprint,
                session::build(),
                session::registry_fingerprint()
            );
            return Err(Error::new(Code::Config, message).hint("run the same build on every node"));
        }
        let mut seen = self.seen.lock();
        seen.retain(|_, (_, at)| now.duration_since(*at) < self.timeout);
        if beat.draining {
            if seen.remove(&beat.id).is_some() {
                tracing::info!(executor = %beat.id, "executor leaves");
            }
            return Ok(());
        }
        let member = Member { id: beat.id, url: beat.pipelined_url, vcores: beat.vcores, build: beat.build };
        let id = member.id.clone();
        if seen.insert(id.clone(), (member, now)).is_none() {
            tracing::info!(executor = %id, "executor joins");
        }
        Ok(())
    }

    /// Who is alive, and how long ago each was heard of.
    pub fn alive(&self) -> Vec<(Member, Duration)> {
        self.alive_at(Instant::now())
    }

    fn alive_at(&self, now: Instant) -> Vec<(Member, Duration)> {
        let silent = |at: &Instant| now.saturating_duration_since(*at);
        self.seen
            .lock()
            .values()
            .map(|(member, at)| (member.clone(), silent(at)))
            .filter(|(_, silent)| *silent < self.timeout)
            .collect()
    }
}

impl Members for Executors {
    fn members(&self) -> Vec<Member> {
        self.alive().into_iter().map(|(member, _)| member).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(id: &str) -> Heartbeat {
        Heartbeat {
            id: ExecutorId::new(id),
            pipelined_url: "http://127.0.0.1:1".parse().unwrap(),
            vcores: 2,
            build: session::build().to_owned(),
            fingerprint: session::registry_fingerprint().to_owned(),
            draining: false,
        }
    }

    #[test]
    fn a_silent_executor_is_lost_and_comes_back() {
        let executors = Executors::new(Duration::from_secs(5));
        let start = Instant::now();
        executors.beat_at(beat("a"), start).unwrap();
        assert_eq!(executors.alive_at(start + Duration::from_secs(4)).len(), 1);
        assert_eq!(executors.alive_at(start + Duration::from_secs(6)).len(), 0);
        executors.beat_at(beat("a"), start + Duration::from_secs(7)).unwrap();
        assert_eq!(executors.alive_at(start + Duration::from_secs(8)).len(), 1);
    }

    #[test]
    fn a_draining_executor_leaves_at_once() {
        let executors = Executors::new(Duration::from_secs(5));
        executors.beat(beat("a")).unwrap();
        executors.beat(Heartbeat { draining: true, ..beat("a") }).unwrap();
        assert!(executors.members().is_empty());
    }

    #[test]
    fn another_build_is_refused() {
        let executors = Executors::new(Duration::from_secs(5));
        let error = executors.beat(Heartbeat { fingerprint: "0".to_owned(), ..beat("a") }).unwrap_err();
        assert_eq!(error.code, Code::Config);
        assert!(executors.members().is_empty());
    }
}
