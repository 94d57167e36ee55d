//! A session that is closed when whoever opened it is done, or gone.

use crate::frontend::api::{Frontend, SessionId};
use std::sync::Arc;
use tidemill_core::Result;
use tokio::runtime::Handle;

/// A session of the frontend. Dropping this closes it, also when a client went away in the middle.
pub(super) struct Opened {
    frontend: Arc<dyn Frontend>,
    pub(super) id: SessionId,
}

impl Opened {
    pub(super) async fn new(frontend: Arc<dyn Frontend>, user: &str) -> Result<Self> {
        let id = frontend.open_session(user).await?;
        Ok(Self { frontend, id })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Without a runtime the process ends, and its sessions with it.
        if let Ok(runtime) = Handle::try_current() {
            let (frontend, id) = (self.frontend.clone(), self.id.clone());
            runtime.spawn(async move { frontend.close_session(&id).await });
        }
    }
}
