//! One Delta table as this process knows it: its log store, and the newest snapshot seen.
//!
//! ```text
//! newest() ─▶ HEAD our newest commit file and the next ─▶ the same, and no next ─▶ that snapshot
//!                                                     ├─▶ the same, and a next ─▶ that snapshot with what came after
//!                                                     └─▶ another, or none ─▶ load from the last checkpoint
//! known()  ─▶ HEAD our newest commit file ─▶ the same ─▶ that snapshot, perhaps not the newest
//! ```
//! A look at a table that did not change costs two small requests, however long its log is. The commit file is
//! compared by size, time and tag, so that a table which was dropped and created again is not taken for the one
//! that was there.

use super::error::from_delta;
use super::features;
use super::folder::Folder;
use super::provider::DeltaProvider;
use arrow::datatypes::SchemaRef;
use deltalake_core::kernel::EagerSnapshot;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::table::state::DeltaTableState;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};
use tidemill_core::config::{Config, Store};
use tidemill_core::{Code, Error, Result};
use tidemill_engine::object_stores::object_store_for;
use url::Url;

/// Beyond this many tables all are forgotten, which costs each of them one load.
const MOST_TABLES: usize = 512;

/// How often a snapshot takes up what others have committed before it is loaded anew, as it gets slower with each. To
/// load takes so much longer that who does it for every try never commits beside one who does not.
const MOST_UPDATES: u32 = 10;

/// Older snapshots of one table that are kept.
const MOST_PAST: usize = 4;

/// Sinks and table providers are built anew for every job and task; what they know of a table is kept here.
static TABLES: LazyLock<Mutex<Vec<Known>>> = LazyLock::new(Mutex::default);

/// A table, and by which configuration it is reached.
type Known = (Store, Arc<Table>);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) url: Url,
    /// Path of the table's folder in its store.
    pub(super) root: Path,
    pub(super) log_store: LogStoreRef,
    newest: Mutex<Option<Arc<Loaded>>>,
    /// Older snapshots that were asked for, the last one at the end.
    past: Mutex<Vec<Arc<Loaded>>>,
    /// Held while a snapshot is loaded, so that many clients cause one load.
    loading: tokio::sync::Mutex<()>,
}

/// A snapshot, and what was derived from it.
#[derive(Debug)]
pub(super) struct Loaded {
    state: DeltaTableState,
    /// The commit file of the snapshot's version; unknown until it was looked at for the first time, when only
    /// its time can be compared with what the listing said when the snapshot was loaded.
    commit: OnceLock<ObjectMeta>,
    /// Newest transaction by application id, as far as it was asked for.
    transactions: Mutex<BTreeMap<String, Option<i64>>>,
    provider: OnceLock<Arc<DeltaProvider>>,
    /// Times that it took up commits of others since it was loaded.
    updates: u32,
}

/// A snapshot beside the table's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Newest,
    /// Others have committed since.
    Behind,
    /// The log is not, or no longer, the one that it came from.
    Foreign,
}

impl Table {
    /// The table at `url`, whether it exists or not. Does not connect.
    pub(super) fn at(url: &Url, config: &Config) -> Result<Arc<Self>> {
        let mut tables = TABLES.lock();
        if let Some((_, known)) =
            tables.iter().find(|(store, table)| table.url == *url && *store == config.store)
        {
            return Ok(known.clone());
        }
        let store = object_store_for(url, config)?;
        let store = if url.scheme() == "file" { Arc::new(Folder::new(store)) } else { store };
        let table = Arc::new(Self::over(store, url)?);
        if tables.len() >= MOST_TABLES {
            tables.clear();
        }
        tables.push((config.store.clone(), table.clone()));
        Ok(table)
    }

    /// The table at `url` in a store that is rooted at the bucket or the file system.
    pub(super) fn over(store: Arc<dyn ObjectStore>, url: &Url) -> Result<Self> {
        let root = Path::from_url_path(url.path())
            .map_err(|error| Error::new(Code::BadOption, format!("`{url}`: {error}")))?;
        let prefixed = Arc::new(PrefixStore::new(store.clone(), root.clone()));
        Ok(Self {
            url: url.clone(),
            root,
            log_store: default_logstore(prefixed, store, url, &StorageConfig::default()),
            newest: Mutex::new(None),
            past: Mutex::default(),
            loading: tokio::sync::Mutex::new(()),
        })
    }

    /// The newest snapshot there is; `None` where there is no table.
    pub(super) async fn newest(&self) -> Result<Option<Arc<Loaded>>> {
        let (before, mut standing) = self.look().await?;
        if standing == Standing::Newest {
            return Ok(before);
        }
        let _one_at_a_time = self.loading.lock().await;
        let mut known = self.cached();
        if known.as_ref().map(Arc::as_ptr) != before.as_ref().map(Arc::as_ptr) {
            (known, standing) = self.look().await?;
            if standing == Standing::Newest {
                return Ok(known);
            }
        }
        let updated = match known.filter(|_| standing == Standing::Behind) {
            Some(known) => self.updated(&known).await,
            None => None,
        };
        let loaded = match updated {
            Some(updated) => updated,
            None if !self.exists().await? => {
                *self.newest.lock() = None;
                return Ok(None);
            }
            None => {
                let state = DeltaTableState::try_new(self.log_store.as_ref(), None).await;
                Loaded::new(state.map_err(|error| from_delta(error, &self.url))?)
            }
        };
        // Where a checkpoint stands for the version, the listing left its commit file out. Without that file a
        // snapshot is never taken for the newest, which costs time only.
        if loaded.listed_at().is_none()
            && let Ok(commit) = self.log_store.object_store(None).head(&commit_path(loaded.version())).await
        {
            loaded.commit.get_or_init(|| commit);
        }
        Ok(Some(self.remember(loaded)))
    }

    /// The newest snapshot; fails with `Code::NotFound` where there is no table.
    pub(super) async fn demand(&self) -> Result<Arc<Loaded>> {
        self.newest().await?.ok_or_else(|| self.missing())
    }

    pub(super) async fn exists(&self) -> Result<bool> {
        self.log_store.is_delta_table_location().await.map_err(|error| from_delta(error, &self.url))
    }

    /// Keeps a snapshot that came out of our own commit.
    pub(super) fn remember(&self, loaded: Loaded) -> Arc<Loaded> {
        let loaded = Arc::new(loaded);
        *self.newest.lock() = Some(loaded.clone());
        loaded
    }

    /// The next look at the table loads it from its last checkpoint.
    pub(super) fn forget(&self) {
        *self.newest.lock() = None;
    }

    /// An older snapshot that was asked for before, if its commit is still the same.
    pub(super) fn known_past(&self, version: u64, commit: &ObjectMeta) -> Option<Arc<Loaded>> {
        let past = self.past.lock();
        past.iter().find(|loaded| loaded.version() == version && loaded.is_made_by(commit)).cloned()
    }

    /// Keeps an older snapshot; one whose commit file is gone cannot be recognised again.
    pub(super) fn remember_past(&self, state: DeltaTableState, commit: Option<ObjectMeta>) -> Arc<Loaded> {
        let loaded = Arc::new(Loaded::new(state));
        if let Some(commit) = commit {
            loaded.commit.get_or_init(|| commit);
            let mut past = self.past.lock();
            past.retain(|known| known.version() != loaded.version());
            if past.len() >= MOST_PAST {
                past.remove(0);
            }
            past.push(loaded.clone());
        }
        loaded
    }

    fn cached(&self) -> Option<Arc<Loaded>> {
        self.newest.lock().clone()
    }

    fn missing(&self) -> Error {
        Error::new(Code::NotFound, format!("no Delta table at {}", self.url))
            .hint("create it first, or check the location")
    }

    /// What is known, and whether it still holds.
    async fn look(&self) -> Result<(Option<Arc<Loaded>>, Standing)> {
        let Some(loaded) = self.cached() else { return Ok((None, Standing::Foreign)) };
        let standing = self.standing(&loaded).await?;
        Ok((Some(loaded), standing))
    }

    /// The snapshot with what was committed since; `None` where it has to be loaded anew.
    async fn updated(&self, known: &Loaded) -> Option<Loaded> {
        if known.updates >= MOST_UPDATES {
            return None;
        }
        let mut state = known.state().clone();
        if let Err(error) = state.update(self.log_store.as_ref(), None).await {
            tracing::debug!(table = %self.url, %error, "a snapshot is loaded anew");
            return None;
        }
        let is_newer = state.version() > known.version();
        is_newer.then(|| Loaded { updates: known.updates + 1, ..Loaded::new(state) })
    }

    async fn standing(&self, loaded: &Loaded) -> Result<Standing> {
        let log = self.log_store.object_store(None);
        let (ours, next) = (commit_path(loaded.version()), commit_path(loaded.version() + 1));
        let (ours, next) = futures::join!(log.head(&ours), log.head(&next));
        match (ours, next) {
            (Ok(meta), Err(object_store::Error::NotFound { .. })) if loaded.is_made_by(&meta) => {
                Ok(Standing::Newest)
            }
            (Ok(meta), Ok(_)) if loaded.is_made_by(&meta) => Ok(Standing::Behind),
            (Ok(_), Ok(_) | Err(object_store::Error::NotFound { .. }))
            | (Err(object_store::Error::NotFound { .. }), _) => Ok(Standing::Foreign),
            (Err(error), _) | (_, Err(error)) => Err(error.into()),
        }
    }
}

impl Loaded {
    pub(super) fn new(state: DeltaTableState) -> Self {
        Self {
            state,
            commit: OnceLock::new(),
            transactions: Mutex::default(),
            provider: OnceLock::new(),
            updates: 0,
        }
    }

    /// The snapshot directly after this one, which `job` made by committing `run`.
    pub(super) fn after(&self, state: DeltaTableState, job: &str, run: i64) -> Self {
        let next = Self::new(state);
        let mut transactions = self.transactions.lock().clone();
        transactions.insert(job.to_owned(), Some(run));
        *next.transactions.lock() = transactions;
        next
    }

    /// Paths of all files as the log has them, in the order of the provider's list of files.
    pub(super) fn paths(&self, table: &Table) -> Result<Vec<String>> {
        let views = self.snapshot().try_log_data().map_err(|error| from_delta(error, &table.url))?;
        Ok(views.iter().map(|view| view.path().into_owned()).collect())
    }

    /// Whether `meta` is the commit file that made this snapshot.
    fn is_made_by(&self, meta: &ObjectMeta) -> bool {
        if let Some(commit) = self.commit.get() {
            return same_file(commit, meta);
        }
        let same = self.listed_at() == Some(meta.last_modified.timestamp_millis());
        same && same_file(self.commit.get_or_init(|| meta.clone()), meta)
    }

    /// Time of the commit file in the listing by which the snapshot was loaded, in milliseconds.
    fn listed_at(&self) -> Option<i64> {
        self.snapshot().version_timestamp(self.version())
    }

    pub(super) fn version(&self) -> u64 {
        self.state.version()
    }

    pub(super) fn state(&self) -> &DeltaTableState {
        &self.state
    }

    pub(super) fn snapshot(&self) -> &EagerSnapshot {
        self.state.snapshot()
    }

    /// The table's columns in Arrow's types, with Delta's marks in their metadata.
    pub(super) fn schema(&self) -> SchemaRef {
        self.snapshot().arrow_schema()
    }

    pub(super) fn partition_columns(&self) -> Vec<String> {
        self.snapshot().metadata().partition_columns().to_vec()
    }

    /// The newest run of `job` in this very snapshot.
    pub(super) async fn transaction(&self, table: &Table, job: &str) -> Result<Option<i64>> {
        if let Some(known) = self.transactions.lock().get(job) {
            return Ok(*known);
        }
        let version = self
            .snapshot()
            .transaction_version(table.log_store.as_ref(), job)
            .await
            .map_err(|error| from_delta(error, &table.url))?;
        self.transactions.lock().insert(job.to_owned(), version);
        Ok(version)
    }

    /// The snapshot as a table of the query engine.
    pub(super) fn provider(&self, table: &Table) -> Result<Arc<DeltaProvider>> {
        if let Some(provider) = self.provider.get() {
            return Ok(provider.clone());
        }
        features::demand_readable(self.snapshot())
            .map_err(|error| error.context(format!("Delta table {}", table.url)))?;
        let provider = Arc::new(DeltaProvider::new(table, self)?);
        Ok(self.provider.get_or_init(|| provider).clone())
    }
}

pub(super) fn commit_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

fn same_file(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    let tags_agree = a.e_tag.is_none() || b.e_tag.is_none() || a.e_tag == b.e_tag;
    a.size == b.size && a.last_modified == b.last_modified && tags_agree
}
