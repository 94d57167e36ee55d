//! What operators need from the process in which they run. It never travels: each node has its own.

use datafusion::execution::TaskContext;
use std::sync::Arc;
use tidemill_core::config::Config;
use tidemill_core::{ConnectorRegistry, Error, Result};

/// The node's own connectors and configuration, found by operators through the session's extensions.
#[derive(Debug)]
pub struct Services {
    pub config: Config,
    pub connectors: ConnectorRegistry,
}

impl Services {
    pub fn new(config: Config, connectors: ConnectorRegistry) -> Arc<Self> {
        Arc::new(Self { config, connectors })
    }

    /// The services of the node that runs a task.
    pub fn of(context: &TaskContext) -> Result<Arc<Self>> {
        context
            .session_config()
            .get_extension::<Self>()
            .ok_or_else(|| Error::internal("the session was built without services"))
    }
}
