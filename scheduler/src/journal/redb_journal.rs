//! The journal of one machine: a single `redb` file.
//!
//! ```text
//! entries   key ─▶ (version, value)
//! meta      "token" ─▶ newest fencing token      "version" ─▶ newest version of any entry
//! ```
//! Token, expectation and write are looked at in one transaction, which is on the disk (fsync) when the call
//! returns. Versions are counted over all keys, so a key that was deleted and written again never has a
//! version that it had before.
//!
//! All calls run on the blocking pool. A write waits for the disk, milliseconds at best; a read is short, but
//! waits while the file is opened again. A dropped future does not take a write back.

use super::fault::{explain, io};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;
use std::sync::Arc;
use tidemill_core::{Code, Error, Expect, FencingToken, Journal, Result, Versioned};

const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const TOKEN: &str = "token";
const VERSION: &str = "version";

/// The outer error is the file's, the inner one our refusal.
type Attempt<T> = Result<Result<T>, redb::Error>;

/// A journal in one file. The file is locked while it is open; a second process is refused.
#[derive(Clone, Debug)]
pub struct RedbJournal {
    file: Arc<JournalFile>,
}

impl RedbJournal {
    /// Opens or creates the file and the folders above it. Blocks for a moment; longer after a crash, when the
    /// file is checked first.
    ///
    /// Errors: `Code::Conflict` when another process has it open, `Code::Config` when it is no journal,
    /// `Code::AccessDenied`, `Code::NoSpace`.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| io(&name, &error))?;
        }
        let path = path.to_owned();
        Self::over(name, Box::new(move || Database::create(&path)))
    }

    fn over(name: String, open: Box<Open>) -> Result<Self> {
        let file = JournalFile { name, open, database: RwLock::new(None) };
        file.ensure_open()?;
        Ok(Self { file: Arc::new(file) })
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Attempt<T> + Send + 'static,
    ) -> Result<T> {
        let file = self.file.clone();
        tokio::task::spawn_blocking(move || file.attempt(work)).await.map_err(Error::internal)?
    }
}

type Open = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

struct JournalFile {
    name: String,
    open: Box<Open>,
    /// `None` after an error of the disk: redb then refuses everything until it is opened again.
    database: RwLock<Option<Database>>,
}

impl std::fmt::Debug for JournalFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl JournalFile {
    fn attempt<T>(&self, work: impl FnOnce(&Database) -> Attempt<T>) -> Result<T> {
        self.ensure_open()?;
        let outcome = match &*self.database.read() {
            Some(database) => work(database),
            // Another call met an error of the disk since.
            None => Err(redb::Error::PreviousIo),
        };
        outcome.unwrap_or_else(|error| {
            use redb::Error as E;
            if matches!(error, E::Io(_) | E::PreviousIo | E::DatabaseClosed | E::LockPoisoned(_)) {
                *self.database.write() = None;
            }
            Err(explain(&self.name, error))
        })
    }

    fn ensure_open(&self) -> Result<()> {
        if self.database.read().is_some() {
            return Ok(());
        }
        let mut database = self.database.write();
        if database.is_none() {
            let opened = (self.open)().map_err(redb::Error::from).and_then(create_tables);
            *database = Some(opened.map_err(|error| explain(&self.name, error))?);
        }
        Ok(())
    }
}

/// So that readers need not care for tables that are not there yet.
fn create_tables(database: Database) -> Result<Database, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(META)?;
    transaction.commit()?;
    Ok(database)
}

#[async_trait]
impl Journal for RedbJournal {
    async fn acquire(&self) -> Result<FencingToken> {
        self.call(|database| {
            let transaction = database.begin_write()?;
            let token = advance(&mut transaction.open_table(META)?, TOKEN)?;
            transaction.commit()?;
            Ok(Ok(FencingToken(token)))
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let key = key.to_owned();
        self.call(move |database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            let found = entries.get(key.as_str())?;
            Ok(Ok(found.map(|entry| versioned(entry.value()))))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(String, Versioned)>> {
        let prefix = prefix.to_owned();
        self.call(move |database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            let mut found = Vec::new();
            for entry in entries.range(prefix.as_str()..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                found.push((key.value().to_owned(), versioned(value.value())));
            }
            Ok(Ok(found))
        })
        .await
    }

    async fn put(&self, token: FencingToken, key: &str, value: Bytes, expect: Expect) -> Result<u64> {
        let key = key.to_owned();
        self.call(move |database| {
            let transaction = database.begin_write()?;
            let version;
            {
                let mut meta = transaction.open_table(META)?;
                let mut entries = transaction.open_table(ENTRIES)?;
                if let Err(refusal) = admit(&meta, &entries, token, &key, expect)? {
                    return Ok(Err(refusal));
                }
                version = advance(&mut meta, VERSION)?;
                entries.insert(key.as_str(), (version, value.as_ref()))?;
            }
            transaction.commit()?;
            Ok(Ok(version))
        })
        .await
    }

    async fn delete(&self, token: FencingToken, key: &str, expect: Expect) -> Result<()> {
        let key = key.to_owned();
        self.call(move |database| {
            let transaction = database.begin_write()?;
            {
                let meta = transaction.open_table(META)?;
                let mut entries = transaction.open_table(ENTRIES)?;
                if let Err(refusal) = admit(&meta, &entries, token, &key, expect)? {
                    return Ok(Err(refusal));
                }
                entries.remove(key.as_str())?;
            }
            transaction.commit()?;
            Ok(Ok(()))
        })
        .await
    }
}

fn versioned((version, value): (u64, &[u8])) -> Versioned {
    Versioned { value: Bytes::copy_from_slice(value), version }
}

/// Adds one to a counter and returns it.
fn advance(meta: &mut redb::Table<'_, &'static str, u64>, counter: &str) -> Result<u64, redb::Error> {
    let next = meta.get(counter)?.map_or(0, |held| held.value()) + 1;
    meta.insert(counter, next)?;
    Ok(next)
}

/// Whether a write under this token and with this expectation may happen.
fn admit(
    meta: &impl ReadableTable<&'static str, u64>,
    entries: &impl ReadableTable<&'static str, (u64, &'static [u8])>,
    token: FencingToken,
    key: &str,
    expect: Expect,
) -> Attempt<()> {
    let newest = meta.get(TOKEN)?.map_or(0, |held| held.value());
    if token.0 < newest {
        let message = format!("`{key}` was not written: token {} is older than {newest}", token.0);
        return Ok(
            Err(Error::new(Code::Fenced, message).hint("there is a newer leader; this one must stop")),
        );
    }
    if token.0 > newest {
        let message = format!("token {} was never given out, the newest is {newest}", token.0);
        return Ok(Err(Error::new(Code::Corrupt, message).hint("was the journal's file replaced?")));
    }
    let held = entries.get(key)?.map(|entry| entry.value().0);
    let (holds, wanted) = match expect {
        Expect::Anything => (true, String::new()),
        Expect::Absent => (held.is_none(), "not there".to_owned()),
        Expect::Version(version) => (held == Some(version), format!("at version {version}")),
    };
    if holds {
        return Ok(Ok(()));
    }
    let is = held.map_or("not there".to_owned(), |version| format!("at version {version}"));
    let message = format!("`{key}` was expected to be {wanted}, but is {is}");
    Ok(Err(Error::new(Code::Conflict, message).hint("read it again and decide anew")))
}

#[cfg(test)]
mod tests;
