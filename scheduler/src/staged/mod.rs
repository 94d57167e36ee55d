//! The staged engine, on Ballista: shuffles on disk, lost tasks run again, more data than memory.
//!
//! ```text
//! plan ─▶ SchedulerServer (in this process, static planner, push) ─▶ executors ─▶ shuffle files
//!                │ status of the job                                                  │ Flight
//!                └──────────▶ Staged ◀──── partitions of the last stage ──────────────┘
//! ```
//! Plans are made with [`plan_settings`]: Ballista cannot run dynamic filters, for one.

mod fetch;
mod joins;
mod report;
mod run;
mod server;
mod slots;

pub use joins::with_planner_rules;
pub use server::plan_settings;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::Schema;
use async_trait::async_trait;
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use fetch::Clients;
use run::Job;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::exec::SelectRowsExec;
use tidemill_engine::pipelined::Members;
use tidemill_engine::{
    Engine, EngineKind, Execution, JobSpec, Services, build_sides, cooperative, explicit_order,
    from_datafusion, session,
};
use tokio::task::JoinHandle;

type Server = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// Hash joins are taken when what they may have to hold is smaller than one part in so many of the memory. What runs
/// out of memory all the same begins again with joins that sort.
const HASH_JOIN_SHARE: u64 = 2;

/// See [`EngineKind::Staged`].
pub struct Staged {
    server: Server,
    services: Arc<Services>,
    runtime: Arc<RuntimeEnv>,
    members: Arc<dyn Members>,
    clients: Clients,
    serving: JoinHandle<()>,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("endpoint", &self.server.scheduler_endpoint).finish_non_exhaustive()
    }
}

impl Staged {
    /// Starts Ballista's scheduler on `cluster.ballista_scheduler`.
    pub async fn start(
        services: Arc<Services>,
        runtime: Arc<RuntimeEnv>,
        members: Arc<dyn Members>,
    ) -> Result<Self> {
        let (server, serving) = server::start(&services, &runtime).await?;
        Ok(Self { server, services, runtime, members, clients: Clients::default(), serving })
    }

    /// The session that goes with a job: its settings travel with the tasks.
    fn session(&self, context: &TaskContext) -> Arc<SessionContext> {
        let config = plan_settings(context.session_config().clone());
        let state = session::session_state(&self.services, self.runtime.clone()).with_config(config).build();
        Arc::new(SessionContext::new_with_state(state))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[async_trait]
impl Engine for Staged {
    fn kind(&self) -> EngineKind {
        EngineKind::Staged
    }

    fn slots(&self) -> usize {
        match self.server.is_ready() {
            true => self.members.members().iter().map(|member| member.vcores).sum(),
            false => 0,
        }
    }

    /// Hash joins are faster, but do not spill: they are for inputs that memory can hold.
    fn planning(&self, session: &SessionConfig, held: Option<u64>) -> SessionConfig {
        let mut config = plan_settings(session.clone());
        let budget = match self.runtime.memory_pool.memory_limit() {
            MemoryLimit::Finite(bytes) => bytes as u64 / HASH_JOIN_SHARE,
            _ => u64::MAX,
        };
        config.options_mut().optimizer.prefer_hash_join = held.is_some_and(|bytes| bytes < budget);
        config
    }

    /// Ballista cuts the plan when the job is submitted; what it is given is all that can be shown before.
    async fn prepare(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if plan.exists(|node| Ok(node.is::<RecursiveQueryExec>())).unwrap_or(true) {
            return Err(Error::new(Code::Unsupported, "engine `staged` runs no recursive queries")
                .hint("SET engine = 'auto'"));
        }
        if unites_chosen_rows(&plan) {
            return Err(Error::new(
                Code::Unsupported,
                "engine `staged` does not read change feeds, nor files with deleted rows beside whole ones",
            )
            .hint("SET engine = 'auto' or 'pipelined'"));
        }
        let config = plan_settings(context.session_config().clone());
        if joins::changes_later(&plan, config.options()) {
            return Err(Error::new(
                Code::Unsupported,
                "engine `staged` would shuffle a join whose place in the plan counts on one partition",
            )
            .hint("SET engine = 'auto' or 'pipelined'"));
        }
        let plan = cooperative::joins(plan).and_then(explicit_order::of_windows).and_then(stored_rows);
        plan.map_err(from_datafusion)
    }

    async fn execute(
        &self,
        job: JobSpec,
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Execution> {
        let plan = build_sides::read(plan, &context, None).await?.plan;
        let plan = self.prepare(plan, context.clone()).await?;
        let session = self.session(&context);
        let (server, clients) = (self.server.clone(), self.clients.clone());
        Ok(Job { server, clients, spec: job, plan, session }.run())
    }
}

/// Whether a union is made of scans that differ in kind: executors end the connection when they are sent one.
fn unites_chosen_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let chosen = |node: &Arc<dyn ExecutionPlan>| {
        node.is::<SelectRowsExec>() || node.schema().column_with_name("_change_type").is_some()
    };
    let unites = |node: &Arc<dyn ExecutionPlan>| {
        node.is::<UnionExec>() && node.exists(|below| Ok(chosen(below))).unwrap_or(true)
    };
    plan.exists(|node| Ok(unites(node))).unwrap_or(true)
}

/// The plan with its rows of constants kept in memory. Ballista deals out what such a leaf holds to the tasks of a
/// stage; any other leaf it would run in each of them, and in none where a union was cut.
fn stored_rows(plan: Arc<dyn ExecutionPlan>) -> DfResult<Arc<dyn ExecutionPlan>> {
    let stored = plan.transform_up(|node| {
        if !node.is::<PlaceholderRowExec>() {
            return Ok(Transformed::no(node));
        }
        // What is projected over it does not look at its columns, which have no values.
        let fields = node
            .schema()
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect::<Vec<_>>();
        let schema = Arc::new(Schema::new(fields));
        let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let one_row = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(schema.clone(), columns, &one_row)?;
        let leaf: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![row]], schema, None)?;
        Ok(Transformed::yes(leaf))
    })?;
    Ok(stored.data)
}
