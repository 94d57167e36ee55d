//! Puts a node together: journal, sessions, pipelines, loads and the frontend over them.

use super::SqlFrontend;
use super::define::Definer;
use super::definitions::Definitions;
use super::history::History;
use super::jobs::Jobs;
use super::load_query::LoadQuery;
use super::operate::Operator;
use super::query::Runner;
use super::session::Sessions;
use super::system::System;
use crate::admission::{Background, Gate, Limits};
use crate::cluster::Executors;
use crate::engines::Engines;
use crate::loads::{Loads, LoadsOptions, SystemClock};
use crate::maintenance::{Optimizer, TargetSize, Upkeep};
use crate::pipelines::{EngineRunner, Pipelines};
use crate::staged;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use std::sync::{Arc, OnceLock};
use tidemill_core::config::Config;
use tidemill_core::{Journal, Result};
use tidemill_engine::session::session_state;
use tidemill_engine::{LakeFormat, Services, memory};
use tidemill_sql::DEFAULT_SCHEMA;
use tidemill_sql::catalog::Catalog;

/// What a node is made of.
pub struct NodeOptions {
    pub services: Arc<Services>,
    pub runtime: Arc<RuntimeEnv>,
    pub journal: Arc<dyn Journal>,
    pub lake: Arc<dyn LakeFormat>,
    pub engines: Arc<Engines>,
    /// `None` when everything is one process.
    pub executors: Option<Arc<Executors>>,
}

/// A running node. It is the leader of its journal from here on.
#[derive(Debug)]
pub struct Node {
    pub frontend: Arc<SqlFrontend>,
    pipelines: Arc<Pipelines>,
    loads: Arc<Loads>,
    history: Arc<History>,
    upkeep: Upkeep,
}

impl Node {
    /// Takes the lead, and takes up every pipeline and load where it stood.
    pub async fn start(options: NodeOptions) -> Result<Self> {
        let NodeOptions { services, runtime, journal, lake, engines, executors } = options;
        let config = services.config.clone();
        let connectors = services.connectors.clone();
        let token = journal.acquire().await?;
        let base = session_state(&services, runtime.clone()).build();
        let jobs = Jobs::default();
        let history = Arc::new(History::start(journal.clone(), token, jobs.clone()).await?);
        let gate = gate(&config, engines.clone(), runtime.clone());
        let background = Arc::new(Background::new(config.target_partitions())?);

        let epochs = EngineRunner::new(services.clone(), base.clone(), engines.clone());
        let pipelines = Pipelines::start(services.clone(), journal.clone(), token, Arc::new(epochs)).await?;
        let definitions = Definitions { journal: journal.clone(), token };
        let system = Arc::new(System {
            definitions: definitions.clone(),
            jobs: jobs.clone(),
            pipelines: pipelines.clone(),
            executors,
            loads: OnceLock::new(),
        });
        let catalog = Catalog::new(&config.lake.root, lake.clone(), system.clone(), base.clone())?;
        let definer = Definer { definitions, catalog: catalog.clone(), lake, connectors: connectors.clone() };
        definer.load().await?;
        let fresh = staged::with_planner_rules(session_state(&services, runtime));
        let fresh = catalog.session(fresh, DEFAULT_SCHEMA).build();

        let memory = upkeep_memory(&config, fresh.runtime_env());
        let optimizer = Optimizer {
            lake: definer.lake.clone(),
            engines: engines.clone(),
            state: fresh.clone(),
            context: fresh.task_ctx(),
            target: TargetSize(config.maintenance.target_file_size_bytes.max(1)),
            memory,
            turns: None,
        };
        let unasked = Optimizer {
            context: Arc::new(memory::limited(TaskContext::from(&fresh), memory)),
            // So many tables are compacted at a time.
            memory: memory / config.maintenance.concurrency.max(1),
            turns: Some(gate.clone()),
            ..optimizer.clone()
        };
        let upkeep = Upkeep::start(unasked, config.maintenance.clone(), &background);
        let orphan_retention = config.maintenance.orphan_retention;

        let runner = Runner {
            engines,
            gate,
            background,
            jobs: jobs.clone(),
            connectors: connectors.clone(),
            heavy_from: config.jobs.heavy_from_bytes,
            local_below: config.jobs.local_below_bytes,
            memory_limit: config.jobs.memory_limit_bytes,
        };
        let load_query = LoadQuery { session: fresh.clone(), runner: runner.clone() };
        let loads = Loads::start(LoadsOptions {
            journal,
            token,
            connectors,
            runner: Arc::new(load_query),
            clock: Arc::new(SystemClock),
            config: &config,
        });
        let loads = Arc::new(loads.await?);
        let _ = system.loads.set(loads.clone());

        let statement_timeout = Some(config.server.statement_timeout).filter(|limit| !limit.is_zero());
        let frontend = SqlFrontend {
            sessions: Sessions::new(statement_timeout),
            fresh,
            catalog,
            runner,
            operator: Operator {
                definer: definer.clone(),
                pipelines: pipelines.clone(),
                loads: loads.clone(),
                config,
                base,
            },
            definer,
            jobs,
            optimizer,
            orphan_retention,
        };
        Ok(Self { frontend: Arc::new(frontend), pipelines, loads, history, upkeep })
    }

    /// Lets running epochs and loads come to a point from which they go on. What is missed here is done again
    /// by the next start.
    pub async fn stop(&self) {
        self.pipelines.shutdown().await;
        self.loads.stop().await;
        self.upkeep.stop().await;
        self.history.stop().await;
    }
}

/// Of the process' memory, what care of tables may take when the configuration does not say: one part in so many.
const UPKEEP_SHARE: usize = 4;
/// The same in bytes, where the process has no limit itself.
const UPKEEP_BYTES: usize = 512 << 20;

fn upkeep_memory(config: &Config, runtime: &RuntimeEnv) -> usize {
    match (config.maintenance.memory_limit_bytes, runtime.memory_pool.memory_limit()) {
        (0, MemoryLimit::Finite(all)) => all / UPKEEP_SHARE,
        (0, _) => UPKEEP_BYTES,
        (bytes, _) => bytes,
    }
}

/// Memory that must be free before one more heavy job starts beside others: one part in so many.
const FREE_SHARE: usize = 4;

fn gate(config: &Config, engines: Arc<Engines>, runtime: Arc<RuntimeEnv>) -> Arc<Gate> {
    let slots = |configured, usual: usize| if configured == 0 { usual } else { configured };
    let light = slots(config.jobs.light_slots, 16 * config.target_partitions());
    let heavy = config.jobs.heavy_slots;
    Gate::new(Limits { light, queue: config.jobs.queue_length }, move || {
        let pool = &runtime.memory_pool;
        let free = match pool.memory_limit() {
            MemoryLimit::Finite(bytes) => pool.reserved() <= bytes - bytes / FREE_SHARE,
            _ => true,
        };
        (slots(heavy, engines.slots()).max(1), free)
    })
}
