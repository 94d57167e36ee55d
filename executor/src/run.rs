//! The life of an executor: start, beat, drain.

use crate::heartbeat::Beats;
use crate::staged;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tidemill_core::config::Config;
use tidemill_core::{Code, Error, ExecutorId, Result};
use tidemill_engine::codec::Codec;
use tidemill_engine::pipelined::{Heartbeat, WorkerServer};
use tidemill_engine::{Services, session};
use tokio::sync::watch;
use url::Url;
use uuid::Uuid;

/// How long running tasks may take to end after a request to stop.
const PATIENCE: Duration = Duration::from_secs(25);

/// Runs until `shutdown` is ready, then drains: no new work, and time for what runs.
pub async fn run(services: Arc<Services>, shutdown: impl Future<Output = ()>) -> Result<()> {
    let config = &services.config;
    let runtime = session::runtime_env(config)?;
    let vcores = vcores(config);
    let listener = TcpListener::bind((config.cluster.executor_host.as_str(), 0)).map_err(|error| {
        let host = &config.cluster.executor_host;
        Error::new(Code::Config, format!("cluster.executor_host = `{host}`: {error}"))
            .hint("give it an address of this machine")
    })?;
    let worker = WorkerServer::start(listener, services.clone(), runtime.clone(), Codec::default(), vcores)?;
    let beat = Heartbeat {
        // Fresh for each process: a restarted one has none of the work of the one before.
        id: ExecutorId::new(format!("executor-{}", Uuid::new_v4().simple())),
        pipelined_url: worker_url(config, worker.address().port())?,
        vcores,
        build: session::build().to_owned(),
        fingerprint: session::registry_fingerprint().to_owned(),
        draining: false,
    };
    tracing::info!(id = %beat.id, url = %beat.pipelined_url, vcores, "executor starts");
    let (stop, stopping) = watch::channel(false);
    let staged = tokio::spawn(staged::run(services.clone(), runtime, vcores, stopping));
    let beats = Beats::new(&config.cluster.scheduler_url, beat)?;
    tokio::select! {
        never = beats.run() => match never {},
        () = shutdown => {}
    }
    tracing::info!("executor drains");
    stop.send_replace(true);
    beats.leave().await;
    let drained = tokio::task::spawn_blocking(move || worker.stop(PATIENCE));
    let (_, _) = tokio::join!(drained, staged::ended(staged, PATIENCE));
    Ok(())
}

fn vcores(config: &Config) -> usize {
    match config.cluster.executor_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

fn worker_url(config: &Config, port: u16) -> Result<Url> {
    let text = format!("http://{}:{port}", config.cluster.executor_host);
    Url::parse(&text).map_err(|error| Error::new(Code::Config, format!("cluster.executor_host: {error}")))
}
