//! Statements run in this process.

use super::backend::{Backend, Running};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use tidemill_core::{JobId, Result};
use tidemill_engine::{Progress, from_datafusion};
use tidemill_scheduler::frontend::api::{Frontend, SessionId};

pub(crate) struct Local {
    frontend: Arc<dyn Frontend>,
    session: SessionId,
}

impl Local {
    pub(crate) async fn open(frontend: Arc<dyn Frontend>) -> Result<Self> {
        let session = frontend.open_session("local").await?;
        Ok(Self { frontend, session })
    }
}

#[async_trait]
impl Backend for Local {
    fn place(&self) -> String {
        "in this process".to_owned()
    }

    async fn execute(&self, sql: &str) -> Result<Running> {
        let answer = self.frontend.execute(&self.session, sql, None).await?;
        Ok(Running {
            job: answer.job,
            kind: answer.kind,
            engine: answer.engine.map(|engine| engine.as_str()),
            schema: answer.schema,
            rows: answer.stream.map_err(from_datafusion).boxed(),
        })
    }

    async fn cancel(&self, job: &JobId) -> Result<()> {
        self.frontend.cancel(job, None).await.map(|_| ())
    }

    async fn progress(&self, job: &JobId) -> Option<Progress> {
        self.frontend.progress(job).await
    }
}
