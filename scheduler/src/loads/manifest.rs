//! The decided outcome of a run's query, in the checkpoint store under `loads/{load id}/manifests/`.
//! Put-if-absent: of two tries, or of a leader and its successor, one decides and the other reads.

use super::schedule::Interval;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{Result, Written, store};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LoadManifest {
    pub(super) load: String,
    pub(super) run: u64,
    pub(super) interval: Interval,
    pub(super) written: Vec<Written>,
}

impl LoadManifest {
    pub(super) fn rows(&self) -> u64 {
        self.written.iter().map(|written| written.rows).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.written.iter().map(|written| written.bytes).sum()
    }
}

#[derive(Clone, Debug)]
pub(super) struct Manifests {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl Manifests {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let (store, root) = store::open(&store::location(&config.checkpoints())?, config)?;
        Ok(Self { store, root })
    }

    fn path(&self, load: &str, run: u64) -> Path {
        self.root.clone().join("loads").join(load).join("manifests").join(format!("{run:020}.json"))
    }

    pub(super) async fn read(&self, load: &str, run: u64) -> Result<Option<LoadManifest>> {
        match self.store.get(&self.path(load, run)).await {
            Ok(found) => Ok(Some(serde_json::from_slice(&found.bytes().await?)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Decides `manifest`, or returns the one that was decided before.
    pub(super) async fn decide(&self, manifest: LoadManifest) -> Result<LoadManifest> {
        let path = self.path(&manifest.load, manifest.run);
        let bytes = serde_json::to_vec(&manifest)?;
        match self.store.put_opts(&path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(manifest),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(self.read(&manifest.load, manifest.run).await?.unwrap_or(manifest))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// After the load was dropped. Best effort: what stays costs only space.
    pub(super) async fn clear(&self, load: &str) {
        use futures::{StreamExt, TryStreamExt};
        let folder = self.root.clone().join("loads").join(load);
        let paths = self.store.list(Some(&folder)).map_ok(|object| object.location).boxed();
        let removed: Result<Vec<Path>, _> = self.store.delete_stream(paths).try_collect().await;
        if let Err(error) = removed {
            tracing::warn!(%error, %folder, "files of a dropped load stay behind");
        }
    }
}
