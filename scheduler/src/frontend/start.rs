//! Puts a node together: journal, sessions, pipelines, loads and the frontend over them.

use super::SqlFrontend;
use super::define::Definer;
use super::definitions::Definitions;
use super::jobs::Jobs;
use super::load_query::LoadQuery;
use super::operate::Operator;
use super::query::Runner;
use super::session::Sessions;
use super::system::System;
use crate::cluster::Executors;
use crate::engines::Engines;
use crate::loads::{Loads, LoadsOptions, SystemClock};
use crate::pipelines::{EngineRunner, Pipelines};
use datafusion::execution::runtime_env::RuntimeEnv;
use std::sync::{Arc, OnceLock};
use tidemill_core::{Journal, Result};
use tidemill_engine::session::session_state;
use tidemill_engine::{LakeFormat, Services};
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
        let fresh = catalog.session(session_state(&services, runtime), DEFAULT_SCHEMA).build();

        let load_query =
            LoadQuery { session: fresh.clone(), engines: engines.clone(), connectors: connectors.clone() };
        let loads = Loads::start(LoadsOptions {
            journal,
            token,
            connectors: connectors.clone(),
            runner: Arc::new(load_query),
            clock: Arc::new(SystemClock),
            config: &config,
        });
        let loads = Arc::new(loads.await?);
        let _ = system.loads.set(loads.clone());

        let frontend = SqlFrontend {
            sessions: Sessions::default(),
            fresh,
            catalog,
            runner: Runner { engines, jobs: jobs.clone(), connectors },
            operator: Operator {
                definer: definer.clone(),
                pipelines: pipelines.clone(),
                loads: loads.clone(),
                config,
                base,
            },
            definer,
            jobs,
        };
        Ok(Self { frontend: Arc::new(frontend), pipelines, loads })
    }

    /// Lets running epochs and loads come to a point from which they go on. What is missed here is done again
    /// by the next start.
    pub async fn stop(&self) {
        self.pipelines.shutdown().await;
        self.loads.stop().await;
    }
}
