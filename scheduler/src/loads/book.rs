//! Loads and their runs in the journal. There is one writer: the leader, under its token.

use super::run::RunRecord;
use super::spec::Load;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use tidemill_core::{Code, Error, Expect, FencingToken, Journal, Result};

#[derive(Clone, Debug)]
pub(super) struct Book {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) token: FencingToken,
}

fn load_key(name: &str) -> String {
    format!("load/{name}")
}

fn runs_key(name: &str) -> String {
    format!("load_run/{name}/")
}

impl Book {
    pub(super) async fn loads(&self) -> Result<Vec<Load>> {
        self.list("load/").await
    }

    /// All runs of one load, in order.
    pub(super) async fn runs(&self, name: &str) -> Result<Vec<RunRecord>> {
        self.list(&runs_key(name)).await
    }

    pub(super) async fn all_runs(&self) -> Result<Vec<RunRecord>> {
        self.list("load_run/").await
    }

    pub(super) async fn create(&self, load: &Load) -> Result<()> {
        let name = &load.spec.name;
        self.put(&load_key(name), load, Expect::Absent).await.map_err(|error| match error.code {
            Code::Conflict => Error::new(Code::AlreadyExists, format!("there is a load `{name}` already"))
                .hint(format!("DROP LOAD {name}, or take another name")),
            _ => error,
        })
    }

    pub(super) async fn put_load(&self, load: &Load) -> Result<()> {
        self.put(&load_key(&load.spec.name), load, Expect::Anything).await
    }

    pub(super) async fn put_run(&self, run: &RunRecord) -> Result<()> {
        let key = format!("{}{:020}", runs_key(&run.load), run.run);
        self.put(&key, run, Expect::Anything).await
    }

    /// The load goes last, so that a drop that stopped half-way can be repeated.
    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        for (key, _) in self.journal.list(&runs_key(name)).await? {
            self.journal.delete(self.token, &key, Expect::Anything).await?;
        }
        self.journal.delete(self.token, &load_key(name), Expect::Anything).await
    }

    async fn put<T: Serialize>(&self, key: &str, value: &T, expect: Expect) -> Result<()> {
        self.journal.put(self.token, key, serde_json::to_vec(value)?.into(), expect).await.map(|_| ())
    }

    async fn list<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>> {
        let entries = self.journal.list(prefix).await?;
        entries.iter().map(|(_, entry)| serde_json::from_slice(&entry.value).map_err(Error::from)).collect()
    }
}
