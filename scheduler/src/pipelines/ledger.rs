//! What is written down of a pipeline's epochs: intents and progress in the journal, manifests in the
//! checkpoint store.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use std::sync::Arc;
use tidemill_core::epoch::{Intent, Manifest};
use tidemill_core::{Code, Epoch, Error, Expect, FencingToken, Journal, PipelineId, Result};
use tidemill_engine::Services;
use tidemill_engine::epoch::pipeline_folder;

/// The ledger of one pipeline, under one leader's token.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    journal: Arc<dyn Journal>,
    token: FencingToken,
    pipeline: PipelineId,
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl Ledger {
    pub(super) fn new(
        journal: Arc<dyn Journal>,
        token: FencingToken,
        pipeline: PipelineId,
        services: &Services,
    ) -> Result<Self> {
        let (store, root) = services.checkpoints()?;
        let folder = pipeline_folder(&root, &pipeline);
        Ok(Self { journal, token, pipeline, store, folder })
    }

    pub(super) fn token(&self) -> FencingToken {
        self.token
    }

    pub(super) async fn done(&self) -> Result<Epoch> {
        match self.journal.get(&self.key("done")).await? {
            Some(found) => Ok(serde_json::from_slice(&found.value)?),
            None => Ok(Epoch::NONE),
        }
    }

    pub(super) async fn intent(&self) -> Result<Option<Intent>> {
        match self.journal.get(&self.key("intent")).await? {
            Some(found) => Ok(Some(serde_json::from_slice(&found.value)?)),
            None => Ok(None),
        }
    }

    pub(super) async fn intend(&self, intent: &Intent) -> Result<()> {
        let body = Bytes::from(serde_json::to_vec(intent)?);
        self.journal.put(self.token, &self.key("intent"), body, Expect::Anything).await?;
        Ok(())
    }

    pub(super) async fn advance(&self, epoch: Epoch) -> Result<()> {
        let body = Bytes::from(serde_json::to_vec(&epoch)?);
        self.journal.put(self.token, &self.key("done"), body, Expect::Anything).await?;
        Ok(())
    }

    pub(super) async fn manifest(&self, epoch: Epoch) -> Result<Option<Manifest>> {
        if epoch == Epoch::NONE {
            return Ok(None);
        }
        match self.store.get(&self.manifest_path(epoch)).await {
            Ok(found) => Ok(Some(serde_json::from_slice(&found.bytes().await?)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Decides the epoch: the first manifest counts, and whoever comes later takes that one up.
    pub(super) async fn decide(&self, manifest: Manifest) -> Result<Manifest> {
        let body = PutPayload::from(serde_json::to_vec(&manifest)?);
        let path = self.manifest_path(manifest.epoch);
        match self.store.put_opts(&path, body, PutMode::Create.into()).await {
            Ok(_) => Ok(manifest),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                let decided = self.manifest(manifest.epoch).await?;
                decided.ok_or_else(|| Error::new(Code::Corrupt, format!("manifest {path} vanished")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Throws away state files that only an earlier manifest names. What is missed here is only space.
    pub(super) async fn sweep_state(&self, before: &Manifest, now: &Manifest) {
        let files = |manifest: &Manifest| -> std::collections::BTreeSet<String> {
            manifest.state.iter().flat_map(|state| &state.files).map(|file| file.path.clone()).collect()
        };
        let kept = files(now);
        for path in files(before).difference(&kept) {
            let Ok(location) = Path::parse(format!("{}/{path}", self.folder)) else { continue };
            if let Err(error) = self.store.delete(&location).await {
                tracing::debug!(%path, %error, "state file not removed");
            }
        }
    }

    fn key(&self, what: &str) -> String {
        format!("epoch/{}/{what}", self.pipeline)
    }

    fn manifest_path(&self, epoch: Epoch) -> Path {
        self.folder.clone().join("manifests").join(format!("{:020}.json", epoch.0))
    }
}
