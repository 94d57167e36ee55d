//! Idle sessions, kept for the next range of the same partition: a new client costs a hundred milliseconds.

use super::client;
use super::session::Session;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tidemill_core::SplitId;

/// A session that nobody wanted for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// At most so many idle sessions in the process; each may hold `queued.max.messages.kbytes`.
const MOST: usize = 64;

/// The connector's options and the split.
pub(super) type Key = (String, SplitId);

#[derive(Debug, Default)]
struct Pool {
    idle: HashMap<Key, Vec<(Session, Instant)>>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// The session that was last used for this key.
pub(super) fn take(key: &Key) -> Option<Session> {
    let mut pool = POOL.lock();
    let sessions = pool.get_or_insert_default().idle.get_mut(key)?;
    sessions.pop().map(|(session, _)| session)
}

pub(super) fn give(key: Key, session: Session) {
    let mut guard = POOL.lock();
    let pool = guard.get_or_insert_default();
    pool.idle.entry(key).or_default().push((session, Instant::now()));
    let mut over = pool.idle.values().map(Vec::len).sum::<usize>().saturating_sub(MOST);
    let mut stale = Vec::new();
    pool.idle.retain(|_, sessions| {
        for (session, since) in std::mem::take(sessions) {
            if since.elapsed() > IDLE || over > 0 {
                over = over.saturating_sub(1);
                stale.push(session);
            } else {
                sessions.push((session, since));
            }
        }
        !sessions.is_empty()
    });
    drop(guard);
    if !stale.is_empty() {
        client::close(stale);
    }
}
