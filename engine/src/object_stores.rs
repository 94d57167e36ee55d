//! Object stores by URL, opened when they are first needed.
//!
//! A plan from another node names its files by URL only, and nobody registers buckets on an executor. So the
//! runtime environment of every process has [`LazyObjectStores`], which opens what it is asked for by the
//! node's own configuration.
//!
//! ```text
//! s3://bucket/… ─▶ LazyObjectStores ─▶ registered by hand? ─▶ that one
//!                        └──────────────▶ object_store_for ─▶ one client per bucket and configuration
//! ```

use dashmap::DashMap;
use datafusion::common::Result as DfResult;
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::ObjectStore;
use parking_lot::Mutex;
use std::sync::{Arc, LazyLock};
use tidemill_core::config::{Config, Store};
use tidemill_core::{Result, store};
use url::{Position, Url};

use crate::to_datafusion;

/// Clients hold connection pools and credentials, so the process has one for each bucket and configuration.
static OPENED: LazyLock<Mutex<Vec<Opened>>> = LazyLock::new(Mutex::default);

struct Opened {
    key: String,
    config: Store,
    store: Arc<dyn ObjectStore>,
}

/// The store behind `url`, rooted at the bucket or the file system, shared by the whole process.
pub fn object_store_for(url: &Url, config: &Config) -> Result<Arc<dyn ObjectStore>> {
    let key = key(url);
    let mut opened = OPENED.lock();
    if let Some(known) = opened.iter().find(|known| known.key == key && known.config == config.store) {
        return Ok(known.store.clone());
    }
    let (store, _) = store::open(url, config)?;
    opened.push(Opened { key, config: config.store.clone(), store: store.clone() });
    Ok(store)
}

/// The registry of a process that was told where its stores are only by configuration.
pub struct LazyObjectStores {
    config: Config,
    registered: DashMap<String, Arc<dyn ObjectStore>>,
}

impl LazyObjectStores {
    pub fn new(config: Config) -> Self {
        Self { config, registered: DashMap::new() }
    }
}

impl std::fmt::Debug for LazyObjectStores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registered: Vec<String> = self.registered.iter().map(|entry| entry.key().clone()).collect();
        f.debug_struct("LazyObjectStores").field("registered", &registered).finish_non_exhaustive()
    }
}

impl ObjectStoreRegistry for LazyObjectStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.registered.insert(key(url), store)
    }

    fn get_store(&self, url: &Url) -> DfResult<Arc<dyn ObjectStore>> {
        if let Some(store) = self.registered.get(&key(url)) {
            return Ok(store.clone());
        }
        object_store_for(url, &self.config).map_err(to_datafusion)
    }
}

/// What tells two stores apart: scheme, host and port, without credentials.
fn key(url: &Url) -> String {
    format!("{}://{}", url.scheme(), &url[Position::BeforeHost..Position::AfterPort])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_datafusion;
    use object_store::memory::InMemory;
    use tidemill_core::Code;

    #[test]
    fn opens_by_configuration_what_nobody_registered() {
        let stores = LazyObjectStores::new(Config::default());
        let first = stores.get_store(&Url::parse("file:///a/b").unwrap()).unwrap();
        let second = stores.get_store(&Url::parse("file:///c").unwrap()).unwrap();
        assert!(Arc::ptr_eq(&first, &second), "one file system, one store");
        let s3 = |bucket: &str| stores.get_store(&Url::parse(&format!("s3://{bucket}/x")).unwrap()).unwrap();
        assert!(Arc::ptr_eq(&s3("a"), &s3("a")));
        assert!(!Arc::ptr_eq(&s3("a"), &s3("b")));
    }

    #[test]
    fn another_configuration_has_another_client() {
        let url = Url::parse("s3://bucket/x").unwrap();
        let mut elsewhere = Config::default();
        elsewhere.store.endpoint = Some("http://127.0.0.1:1".to_owned());
        let here = object_store_for(&url, &Config::default()).unwrap();
        assert!(!Arc::ptr_eq(&here, &object_store_for(&url, &elsewhere).unwrap()));
    }

    #[test]
    fn what_was_registered_by_hand_goes_first_and_unknown_schemes_are_named() {
        let stores = LazyObjectStores::new(Config::default());
        let url = Url::parse("memory://here").unwrap();
        let error = from_datafusion(stores.get_store(&url).unwrap_err());
        assert_eq!(error.code, Code::BadOption);
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        stores.register_store(&url, memory.clone());
        assert!(Arc::ptr_eq(&stores.get_store(&url).unwrap(), &memory));
    }
}
