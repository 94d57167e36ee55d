//! The pipelined engine, on `datafusion-distributed`: batches stream from task to task over gRPC.
//!
//! ```text
//! plan ─▶ buckets (keyed state) ─▶ distribute ─▶ guard task roots ─▶ run on the workers ─▶ stream
//!              ▲                                                          │
//!              └───────── again, on the workers that still answer ◀── a worker is lost
//! ```
//! There is no recovery within a job: when a worker dies, the whole bounded job is planned and run again, as
//! long as no row was handed out. Further tries go without the filters that operators fill in while they run, as
//! those of the first try are filled in already. Epochs are not tried again here, because a new try needs a new scope.

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

use crate::build_sides::{self, Workers};
use crate::codec::Codec;
use crate::guard::guard;
use crate::stages::{StageReport, StageReports};
use crate::{Engine, EngineKind, Execution, JobKind, JobSpec, dynamic_filters, from_datafusion, session};
use async_trait::async_trait;
use channels::Channels;
use datafusion::common::Result as DfResult;
use datafusion::config::OptimizerOptions;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions, execute_stream,
};
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
        let parts = Parts { engine: self, workers: workers.clone(), context: context.clone() };
        // The parts of an epoch's plan belong together.
        let by = (job.kind != JobKind::Epoch).then_some(&parts as &dyn Workers);
        let read = build_sides::read(plan, &context, by).await?;
        // Made before anything runs: afterwards the filters would say what the first try has found out.
        let again = dynamic_filters::none(read.plan.clone()).map_err(from_datafusion)?;
        let first = self.cluster(workers).distribute(read.plan, &context).await?;
        let running = Job { engine: self.clone(), spec: job, again, context }.run(first);
        Ok(Execution { stages: one_after_the_other(read.stages, running.stages.clone()), ..running })
    }
}

/// Runs parts of a job's plan beforehand.
struct Parts<'a> {
    engine: &'a Pipelined,
    workers: Vec<Member>,
    context: Arc<TaskContext>,
}

#[async_trait]
impl Workers for Parts<'_> {
    async fn run(&self, plan: Arc<dyn ExecutionPlan>) -> Result<(SendableRecordBatchStream, StageReports)> {
        let part = self.engine.cluster(self.workers.clone()).distribute(plan, &self.context).await?;
        let run = part.plan.clone();
        let stream = execute_stream(part.plan, part.context).map_err(from_datafusion)?;
        Ok((guard(stream), Arc::new(move || Box::pin(report::stages(run.clone())))))
    }
}

/// The stages of build sides that were read beforehand, and those of the plan.
fn one_after_the_other(before: Vec<StageReports>, last: StageReports) -> StageReports {
    if before.is_empty() {
        return last;
    }
    Arc::new(move || {
        let (before, last) = (before.clone(), last.clone());
        Box::pin(async move {
            let mut all = Vec::new();
            for (number, reports) in before.iter().enumerate() {
                let stages = reports().await?.into_iter();
                all.extend(stages.map(|stage| StageReport {
                    stage: format!("build side {}, {}", number + 1, stage.stage),
                    ..stage
                }));
            }
            all.extend(last().await?);
            Ok(all)
        })
    })
}

fn with_children(
    plan: Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    plan.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}
