//! From a single-node plan to one over the workers of a try.

use super::carried::Carried;
use super::channels::Channels;
use super::leaves::{FEWEST_TASKS, InOrder, SplitDescriptors, SplitFiles, TaskCounts};
use super::{Member, buckets, partitions, with_children};
use crate::build_sides::MOST_ROW_BYTES;
use crate::codec::Codec;
use crate::exec::SelectRowsExec;
use crate::guard::GuardExec;
use crate::scan::{divides_by_files, widen};
use crate::{cooperative, explicit_order, from_datafusion, travel};
use arrow::array::RecordBatch;
use arrow::ipc::CompressionType;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::TaskContext;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    BroadcastExec, DistributedExt, NetworkBoundaryExt, NetworkBroadcastExec, SessionStateBuilderExt,
    WorkerResolver,
};
use std::sync::Arc;
use tidemill_core::Result;
use url::{Host, Url};

/// Bytes that a connection buffers before it stops reading. They span all partitions of the connection, so a
/// merge that waits for one partition needs room for the others.
const BUFFER_BYTES: usize = 512 << 20;

/// The workers of one try and the way to them.
pub(super) struct Cluster {
    pub(super) workers: Vec<Member>,
    pub(super) codec: Codec,
    pub(super) channels: Channels,
}

/// A plan that may be executed once.
pub(super) struct Distributed {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
    pub(super) cluster: Cluster,
}

impl Cluster {
    pub(super) async fn distribute(
        self,
        plan: Arc<dyn ExecutionPlan>,
        context: &TaskContext,
    ) -> Result<Distributed> {
        let mut config = self.session_config(context.session_config()).map_err(from_datafusion)?;
        // The scheduler's own stage reads files, too.
        let mut plan = widen(plan)
            .map(gathered)
            .and_then(cooperative::joins)
            .and_then(explicit_order::of_windows)
            .map_err(from_datafusion)?;
        if undistributable(&plan) {
            return Ok(Distributed { plan, context: Arc::new(with_config(context, config)), cluster: self });
        }
        let cores = self.workers.iter().map(|worker| worker.vcores).min().unwrap_or(1).max(1);
        if cores < config.target_partitions()
            && let Some(fewer) = partitions::fewer(&plan, cores).map_err(from_datafusion)?
        {
            (plan, config) = (fewer, config.with_target_partitions(cores));
        }
        let counts = TaskCounts { fewest: 1 };
        let (mut planned, mut used) = self.plan(plan.clone(), config.clone(), context, counts).await?;
        if !is_distributed(&planned) && reads_files(&plan) {
            // So little to read that one task would do. It is one of the executors' all the same.
            let counts = TaskCounts { fewest: FEWEST_TASKS };
            (planned, used) = self.plan(plan, config, context, counts).await?;
        }
        let context = Arc::new(with_config(context, used));
        Ok(Distributed { plan: planned, context, cluster: self })
    }

    /// `datafusion-distributed` plans within a query planner. Ours hands it the plan that is there already.
    async fn plan(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: SessionConfig,
        context: &TaskContext,
        counts: TaskCounts,
    ) -> Result<(Arc<dyn ExecutionPlan>, SessionConfig)> {
        let aligned = buckets::align(plan, self.tasks()).map_err(from_datafusion)?;
        let state = SessionStateBuilder::new()
            .with_config(config.with_distributed_desired_task_count_handler(counts))
            .with_runtime_env(context.runtime_env())
            .with_query_planner(Arc::new(Given(aligned)))
            .with_distributed_planner()
            .build();
        let nothing = LogicalPlan::EmptyRelation(EmptyRelation {
            produce_one_row: false,
            schema: Arc::new(DFSchema::empty()),
        });
        let planned =
            state.query_planner().create_physical_plan(&nothing, &state).await.map_err(from_datafusion)?;
        buckets::check(&planned, 1)?;
        let planned = with_rows_in_place(planned).map_err(from_datafusion)?;
        Ok((guarded(planned).map_err(from_datafusion)?, state.config().clone()))
    }

    fn tasks(&self) -> usize {
        self.workers.len().max(FEWEST_TASKS)
    }

    fn session_config(&self, config: &SessionConfig) -> DfResult<SessionConfig> {
        let urls: Vec<Url> = self.workers.iter().map(|worker| worker.url.clone()).collect();
        config
            .clone()
            .with_distributed_option_extension(Carried::of(config.options()))
            .with_distributed_user_codec(self.codec.clone())
            .with_distributed_channel_resolver(self.channels.clone())
            .with_distributed_worker_resolver(Fixed(urls.clone()))
            .with_distributed_scale_up_leaf_node_handler(SplitDescriptors)
            .with_distributed_scale_up_leaf_node_handler(SplitFiles)
            .with_distributed_route_tasks_handler(InOrder(urls.clone()))
            .with_distributed_worker_connection_buffer_budget_bytes(BUFFER_BYTES)?
            .with_distributed_compression(compression(&urls))?
            .with_distributed_max_tasks_per_stage(self.tasks())
    }
}

/// How batches travel. A network is slower than compressing is; this machine's own memory is not.
fn compression(workers: &[Url]) -> Option<CompressionType> {
    let is_here = |url: &Url| match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    (!workers.iter().all(is_here)).then_some(CompressionType::LZ4_FRAME)
}

/// The plan with a root that gathers all tasks, also those of a plan of one partition: its leaf may be cut, and its
/// limit is that of all tasks together. One partition that has an order is read by one task.
fn gathered(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let one = plan.output_partitioning().partition_count() == 1;
    if one && (plan.output_ordering().is_some() || plan.is::<CoalescePartitionsExec>()) {
        return plan;
    }
    let limit = plan.fetch().filter(|_| one);
    let unlimited = limit.and_then(|_| plan.with_fetch(None));
    Arc::new(CoalescePartitionsExec::new(unlimited.unwrap_or(plan)).with_fetch(limit))
}

fn is_distributed(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.exists(|node| Ok(node.is_network_boundary())).unwrap_or(false)
}

fn reads_files(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.exists(|node| {
        let source = node.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
        Ok(node.is::<SelectRowsExec>() || source.is_some_and(|source| source.is::<FileScanConfig>()))
    })
    .unwrap_or(false)
}

/// Plans that would be wrong over several tasks; the coordinator runs them alone.
fn undistributable(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.exists(|node| {
        let ordered = node.downcast_ref::<RepartitionExec>().is_some_and(RepartitionExec::preserve_order);
        // Tasks would divide the files among them anew.
        Ok(ordered || divides_by_files(node) || travel::stays(node).is_some())
    })
    .unwrap_or(true)
}

/// The plan without stages that would only send rows which the plan itself has, to all tasks of another stage.
fn with_rows_in_place(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let in_place = plan.transform_up(|node| {
        let broadcast = node.is::<NetworkBroadcastExec>().then(|| only_child(&node)).flatten();
        let rows = broadcast.filter(|below| below.is::<BroadcastExec>()).and_then(only_child);
        match rows.filter(|leaf| is_small_memory(leaf)) {
            Some(rows) => Ok(Transformed::yes(Arc::clone(rows))),
            None => Ok(Transformed::no(node)),
        }
    })?;
    Ok(in_place.data)
}

/// Rows that may be sent to every task of a stage with its plan.
fn is_small_memory(leaf: &Arc<dyn ExecutionPlan>) -> bool {
    let source = leaf.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
    source.and_then(|source| source.downcast_ref::<MemorySourceConfig>()).is_some_and(|source| {
        let batches = source.partitions().iter().flatten();
        batches.map(RecordBatch::get_array_memory_size).sum::<usize>() <= MOST_ROW_BYTES
    })
}

fn only_child(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    match plan.children().as_slice() {
        &[child] => Some(child),
        _ => None,
    }
}

/// A panic at the root of a task would end its partitions as if they were complete. Repartitions make an
/// error of it themselves, but must stay at the root, and broadcasts need the guard below them.
fn guarded(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        if !node.is_network_boundary() {
            return Ok(Transformed::no(node));
        }
        let &[root] = node.children().as_slice() else { return Ok(Transformed::no(node)) };
        let root: Arc<dyn ExecutionPlan> = if root.is::<RepartitionExec>() || root.is::<BroadcastExec>() {
            let &[input] = root.children().as_slice() else { return Ok(Transformed::no(node)) };
            with_children(root.clone(), vec![Arc::new(GuardExec::new(input.clone()))])?
        } else {
            Arc::new(GuardExec::new(root.clone()))
        };
        Ok(Transformed::yes(with_children(node, vec![root])?))
    })?;
    Ok(guarded.data)
}

fn with_config(context: &TaskContext, config: SessionConfig) -> TaskContext {
    TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    )
}

#[derive(Debug)]
struct Given(Arc<dyn ExecutionPlan>);

#[async_trait]
impl QueryPlanner for Given {
    async fn create_physical_plan(
        &self,
        _: &LogicalPlan,
        _: &dyn Session,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self.0.clone())
    }
}

/// The workers of this try, whoever joins or leaves meanwhile.
struct Fixed(Vec<Url>);

impl WorkerResolver for Fixed {
    fn get_urls(&self) -> DfResult<Vec<Url>> {
        Ok(self.0.clone())
    }
}
