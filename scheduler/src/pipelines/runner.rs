//! Runs one try of an epoch: plan it, run it, and demand a report of everything.

use super::PipelineRecord;
use crate::engines::Engines;
use async_trait::async_trait;
use datafusion::execution::SessionState;
use std::sync::Arc;
use tidemill_core::epoch::{Intent, Manifest, assemble};
use tidemill_core::{JobId, Result};
use tidemill_engine::epoch::EpochScope;
use tidemill_engine::exec::collect_written;
use tidemill_engine::{EngineKind, JobKind, JobSpec, Services};
use tidemill_sql::streaming::{EpochInput, plan_epoch};
use uuid::Uuid;

/// Steps 2 and 3 of an epoch, up to the manifest that is to be decided.
#[async_trait]
pub trait EpochRunner: Send + Sync {
    async fn run(
        &self,
        pipeline: &PipelineRecord,
        intent: &Intent,
        previous: Option<&Manifest>,
    ) -> Result<Manifest>;
}

/// On whatever engine epochs run on here.
#[derive(Debug)]
pub struct EngineRunner {
    services: Arc<Services>,
    session: SessionState,
    engines: Arc<Engines>,
}

impl EngineRunner {
    pub fn new(services: Arc<Services>, session: SessionState, engines: Arc<Engines>) -> Self {
        Self { services, session, engines }
    }
}

#[async_trait]
impl EpochRunner for EngineRunner {
    async fn run(
        &self,
        pipeline: &PipelineRecord,
        intent: &Intent,
        previous: Option<&Manifest>,
    ) -> Result<Manifest> {
        let engine = self.engines.for_epochs()?;
        let in_process = engine.kind() == EngineKind::InProcess;
        let scope = EpochScope {
            pipeline: intent.pipeline.clone(),
            epoch: intent.epoch,
            attempt: Uuid::new_v4().simple().to_string(),
            late_before_ms: intent.late_before_ms,
            close_before_ms: intent.close_before_ms,
        };
        let input = EpochInput {
            scope: scope.clone(),
            ranges: intent.ranges.clone(),
            state: previous.map(|manifest| manifest.state.clone()).unwrap_or_default(),
            table: pipeline.table.clone(),
            dead_letters: pipeline.dead_letters.clone(),
            state_deltas: self.services.config.streaming.state_deltas,
            single_writer: in_process,
        };
        let planned = plan_epoch(&self.session, &pipeline.definition, &input).await?;
        let job = JobSpec {
            id: JobId::new(format!("{}-{}-{}", intent.pipeline, intent.epoch, scope.attempt)),
            kind: JobKind::Epoch,
            title: format!("epoch {} of {}", intent.epoch, pipeline.name),
        };

        self.services.reports.open(&scope);
        let outcome = async {
            let running = engine.execute(job, planned.plan, self.session.task_ctx()).await?;
            collect_written(running.stream).await
        };
        let outcome = outcome.await;
        // The desk is closed in any case, or the reports of failed tries would pile up.
        let reports = self.services.collect_reports(&scope, !in_process && outcome.is_ok()).await?;
        let written = outcome?;
        let manifest = assemble(
            intent,
            previous,
            &reports,
            &written,
            &planned.stateful,
            pipeline.definition.delay_ms(),
        )?;
        if !in_process {
            let services = self.services.clone();
            tokio::spawn(async move {
                if let Err(error) = services.sweep_reports(&scope).await {
                    tracing::debug!(%error, "reports of a finished try not removed");
                }
            });
        }
        Ok(manifest)
    }
}
