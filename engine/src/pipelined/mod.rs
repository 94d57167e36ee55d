//! The pipelined engine, on `datafusion-distributed`: batches stream from task to task over gRPC.
//!
//! ```text
//! plan ─▶ buckets (keyed state) ─▶ distribute ─▶ guard task roots ─▶ run on the workers ─▶ stream
//!              ▲                                                          │
//!              └───────── again, on the workers that still answer ◀── a worker is lost
//! ```
//! There is no recovery within a job: when a worker dies, the whole bounded job is planned and run again, as
//! long as no row was handed out. Epochs are not tried again here, because a new try needs a new scope.

mod buckets;
mod carried;
mod channels;
mod distribute;
mod leaves;
mod members;
mod partitions;
mod report;
mod tries;
mod worker;

pub use members::{Heartbeat, Member, Members};
pub use worker::WorkerServer;

use crate::codec::Codec;
use crate::{Engine, EngineKind, Execution, JobSpec, early_keys, session};
use async_trait::async_trait;
use channels::Channels;
use datafusion::common::Result as DfResult;
use datafusion::config::OptimizerOptions;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};
use datafusion::prelude::SessionConfig;
use distribute::Cluster;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tries::Job;

/// Build sides up to this size are broadcast: TPC-H takes a tenth less time with it than with DataFusion's own
/// limits, which know of no network, and no less with eight times as many bytes.
const BROADCAST_BYTES: usize = 16 << 20;
const BROADCAST_ROWS: usize = 1_000_000;

/// See [`EngineKind::Pipelined`].
#[derive(Clone, Debug)]
pub struct Pipelined {
    members: Arc<dyn Members>,
    codec: Codec,
    channels: Channels,
}

impl Pipelined {
    pub fn new(members: Arc<dyn Members>) -> Self {
        Self { members, codec: Codec::default(), channels: Channels::default() }
    }

    /// Another codec, for tests that bring operators of their own; workers need the same.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Workers of this very build, in a stable order.
    fn live(&self) -> Result<Vec<Member>> {
        let mut live: Vec<Member> =
            self.members.members().into_iter().filter(|member| member.build == session::build()).collect();
        if live.is_empty() {
            return Err(Error::new(Code::NoExecutors, "no executor is registered")
                .hint("start `tidemill executor`, or SET engine = 'in_process'"));
        }
        live.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(live)
    }

    fn cluster(&self, workers: Vec<Member>) -> Cluster {
        Cluster { workers, codec: self.codec.clone(), channels: self.channels.clone() }
    }
}

#[async_trait]
impl Engine for Pipelined {
    fn kind(&self) -> EngineKind {
        EngineKind::Pipelined
    }

    fn slots(&self) -> usize {
        self.live().map_or(0, |live| live.iter().map(|member| member.vcores).sum())
    }

    /// A build side of some size is rather sent to all workers than the other side to be shuffled between them.
    fn planning(&self, session: &SessionConfig, _: Option<u64>) -> SessionConfig {
        let mut config = session.clone();
        let (optimizer, usual) = (&mut config.options_mut().optimizer, OptimizerOptions::default());
        // What a user has set stays.
        if optimizer.hash_join_single_partition_threshold == usual.hash_join_single_partition_threshold {
            optimizer.hash_join_single_partition_threshold = BROADCAST_BYTES;
        }
        if optimizer.hash_join_single_partition_threshold_rows
            == usual.hash_join_single_partition_threshold_rows
        {
            optimizer.hash_join_single_partition_threshold_rows = BROADCAST_ROWS;
        }
        // Also after a RESET: see `session_config`.
        optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        config
    }

    async fn prepare(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.cluster(self.live()?).distribute(plan, &context).await?.plan)
    }

    async fn execute(
        &self,
        job: JobSpec,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Execution> {
        let workers = self.live()?;
        let plan = early_keys::fill_in(plan, &context).await?;
        let first = self.cluster(workers).distribute(plan.clone(), &context).await?;
        Ok(Job { engine: self.clone(), spec: job, plan, context }.run(first))
    }
}

fn with_children(
    plan: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
