//! Which workers there are, and how they say so.

use serde::{Deserialize, Serialize};
use tidemill_core::ExecutorId;
use url::Url;

/// One live executor, as its last heartbeat described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: ExecutorId,
    /// Where its pipelined worker listens.
    pub url: Url,
    pub vcores: usize,
    /// See [`crate::session::build`].
    pub build: String,
}

/// What an executor tells the scheduler again and again: `POST /v1/executors/heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub id: ExecutorId,
    pub pipelined_url: Url,
    pub vcores: usize,
    pub build: String,
    /// See [`crate::session::registry_fingerprint`].
    pub fingerprint: String,
    /// The executor is about to stop: it takes no new work.
    #[serde(default)]
    pub draining: bool,
}

/// The executors that are alive now. One that has been silent for too long is no longer among them.
pub trait Members: Send + Sync + std::fmt::Debug {
    fn members(&self) -> Vec<Member>;
}
