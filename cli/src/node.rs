//! The composition root: where connectors, engines, journal and frontend are put together.
//!
//! ```text
//! Config ─▶ Services ─┬─ local      in-process engine ──────────────────────▶ Node ─▶ frontend
//!                     └─ scheduler  in-process, pipelined, staged engines ──▶ Node ─▶ frontend
//! ```

use anyhow::{Context, Result};
use axum::Router;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::future::Future;
use std::sync::Arc;
use tidemill_connectors::delta::DeltaLake;
use tidemill_core::config::Config;
use tidemill_engine::pipelined::{Members, Pipelined};
use tidemill_engine::{Engine, InProcess, Services, session};
use tidemill_scheduler::cluster::{self, Executors};
use tidemill_scheduler::engines::Engines;
use tidemill_scheduler::frontend::api::Frontend;
use tidemill_scheduler::frontend::{Node, NodeOptions};
use tidemill_scheduler::gateway::{Credentials, FlightTls, http, serve_flight};
use tidemill_scheduler::journal::RedbJournal;
use tidemill_scheduler::staged::Staged;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// This process's connectors and caches.
pub(crate) fn services(config: Config) -> Arc<Services> {
    let connectors = tidemill_connectors::registry(&config);
    Services::new(config, connectors)
}

/// Everything in this process.
pub(crate) async fn start_local(config: Config) -> Result<Node> {
    let services = services(config);
    let in_process = InProcess::new(services.config.target_partitions());
    start(services, |_, in_process| Ok(Engines::local(in_process)), Arc::new(in_process), None).await
}

async fn start(
    services: Arc<Services>,
    engines: impl FnOnce(&Arc<Services>, Arc<dyn Engine>) -> Result<Engines>,
    in_process: Arc<dyn Engine>,
    executors: Option<Arc<Executors>>,
) -> Result<Node> {
    let runtime = session::runtime_env(&services.config)?;
    let journal = Arc::new(RedbJournal::open(&services.config.journal.path)?);
    let lake = Arc::new(DeltaLake::new(services.config.clone()));
    let engines = Arc::new(engines(&services, in_process)?);
    Ok(Node::start(NodeOptions { services, runtime, journal, lake, engines, executors }).await?)
}

/// `tidemill local`: a node in this process, served to clients.
pub(crate) async fn serve_local(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let node = start_local(config.clone()).await?;
    serve(&config, listeners, &node, Router::new(), shutdown).await
}

/// `tidemill scheduler`: plans here, runs on the executors that register.
pub(crate) async fn serve_scheduler(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    let listeners = Listeners::bind(&config).await?;
    let services = services(config.clone());
    let executors = Arc::new(Executors::new(config.cluster.executor_timeout));
    let members: Arc<dyn Members> = executors.clone();
    let runtime = session::runtime_env(&config)?;
    let staged: Arc<dyn Engine> = Arc::new(Staged::start(services.clone(), runtime, members.clone()).await?);
    let pipelined: Arc<dyn Engine> = Arc::new(Pipelined::new(members));
    let in_process = Arc::new(InProcess::new(config.target_partitions()));
    let engines = |_: &Arc<Services>, local| Ok(Engines::cluster(local, pipelined, Some(staged)));
    let node = start(services, engines, in_process, Some(executors.clone())).await?;
    serve(&config, listeners, &node, cluster::router(executors), shutdown).await
}

/// `tidemill executor`.
pub(crate) async fn serve_executor(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    Ok(tidemill_executor::run(services(config), shutdown).await?)
}

/// Bound before anything else starts, so that a port that is taken is found first.
struct Listeners {
    flight: TcpListener,
    http: TcpListener,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self> {
        Ok(Self {
            flight: bind("server.flight", &config.server.flight).await?,
            http: bind("server.http", &config.server.http).await?,
        })
    }
}

async fn bind(key: &str, address: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key} = \"{address}\" cannot be listened on; choose another address"))
}

/// Serves until `shutdown`, then lets what runs come to its end.
async fn serve(
    config: &Config,
    listeners: Listeners,
    node: &Node,
    routes: Router,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let credentials = Credentials::new(&config.auth)?;
    let tls = config.server.tls.as_ref().map(FlightTls::new).transpose()?;
    credentials.demand_for("server.flight", listeners.flight.local_addr()?)?;
    credentials.demand_for("server.http", listeners.http.local_addr()?)?;
    let frontend: Arc<dyn Frontend> = node.frontend.clone();
    let (stop, stopping) = watch::channel(false);
    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let http_address = listeners.http.local_addr()?;
    let flight_address = listeners.flight.local_addr()?;
    let router = http::router(frontend.clone(), credentials.clone(), metrics_handle()?).merge(routes);
    let http = axum::serve(listeners.http, router).with_graceful_shutdown(stopped(stopping.clone()));
    let http = tokio::spawn(http.into_future());
    let flight = serve_flight(listeners.flight, frontend, credentials, tls, stopped(stopping));
    let flight = tokio::spawn(flight);
    eprintln!("Flight SQL on {flight_address}, web page on http://{http_address}; Ctrl-C stops");
    shutdown.await;
    eprintln!("stopping");
    stop.send_replace(true);
    node.stop().await;
    // Clients that hold a connection open do not hold the process up.
    let both = async { (http.await, flight.await) };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), both).await;
    Ok(())
}

fn metrics_handle() -> Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().context("the metrics recorder cannot be installed")
}
