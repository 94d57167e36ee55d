//! What operators need from the process in which they run. It never travels: each node has its own.

use crate::epoch::{ReportDesk, StateCache};
use crate::{DataCache, session};
use datafusion::execution::TaskContext;
use object_store::ObjectStore;
use object_store::path::Path;
use std::sync::{Arc, OnceLock};
use tidemill_core::config::Config;
use tidemill_core::{ConnectorRegistry, Error, Result, store};

/// The node's own connectors, configuration and caches, found by operators through the session's extensions.
#[derive(Debug)]
pub struct Services {
    pub config: Config,
    pub connectors: ConnectorRegistry,
    /// Where operators of epochs that this process drives hand in their reports.
    pub reports: ReportDesk,
    /// Keyed state that this process has at hand.
    pub state: StateCache,
    /// Decoded columns; `None` when the configuration has no room for them.
    pub data: Option<Arc<DataCache>>,
    checkpoints: OnceLock<(Arc<dyn ObjectStore>, Path)>,
}

impl Services {
    pub fn new(config: Config, connectors: ConnectorRegistry) -> Arc<Self> {
        let state = StateCache::new(config.streaming.state_cache_bytes);
        let room = session::data_cache_bytes(&config);
        let data = (room > 0).then(|| Arc::new(DataCache::new(room as u64)));
        Arc::new(Self {
            config,
            connectors,
            reports: ReportDesk::default(),
            state,
            data,
            checkpoints: OnceLock::new(),
        })
    }

    /// The services of the node that runs a task.
    pub fn of(context: &TaskContext) -> Result<Arc<Self>> {
        context
            .session_config()
            .get_extension::<Self>()
            .ok_or_else(|| Error::internal("the session was built without services"))
    }

    /// The checkpoint store: manifests, state files, reports, staged loads; and the path of its root.
    pub fn checkpoints(&self) -> Result<(Arc<dyn ObjectStore>, Path)> {
        if let Some(opened) = self.checkpoints.get() {
            return Ok(opened.clone());
        }
        let opened = store::open(&store::location(&self.config.checkpoints())?, &self.config)?;
        Ok(self.checkpoints.get_or_init(|| opened).clone())
    }
}
