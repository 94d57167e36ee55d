//! The control store: a small key-value store with compare-and-set and fencing.
//!
//! Specs, intents and pointers go in; plans, manifests and state go to the object store. A value stays
//! well below 1 MiB (etcd's limit is 1.5 MiB).

use crate::{FencingToken, Result};
use async_trait::async_trait;
use bytes::Bytes;

/// A value with the version that a compare-and-set names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub value: Bytes,
    /// Grows with every write to the key; never 0.
    pub version: u64,
}

/// What a write demands of the key's present state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Anything,
    Absent,
    Version(u64),
}

/// The contract: writes are durable when they return, are refused with `Code::Fenced` under a token older
/// than the newest one acquired, and with `Code::Conflict` when the expectation does not hold.
#[async_trait]
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// Becomes the leader: a token greater than every earlier one.
    async fn acquire(&self) -> Result<FencingToken>;

    async fn get(&self, key: &str) -> Result<Option<Versioned>>;

    /// All keys that begin with `prefix`, in key order.
    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>>;

    /// Returns the new version.
    async fn put(&self, token: FencingToken, key: &str, value: Bytes, expect: Expect) -> Result<u64>;

    async fn delete(&self, token: FencingToken, key: &str, expect: Expect) -> Result<()>;
}
