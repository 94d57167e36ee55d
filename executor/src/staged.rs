//! The Ballista executor within this process. It ends when it has lost its scheduler for too long; then a new
//! one begins, with another id, for a scheduler refuses an id that it has seen.

use crate::engine::Execution;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::SessionConfigExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::executor_server::TERMINATING;
use datafusion::execution::runtime_env::RuntimeEnv;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::codec::Codec;
use tidemill_engine::{Services, session};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const MESSAGE_BYTES: u32 = 128 << 20;
const HEARTBEAT_SECS: u64 = 2;
const CLEAN_UP_SECS: u64 = 600;
/// Longer than any job may take: shuffle files are cleaned when their job ends, this is for orphans.
const JOB_DATA_TTL_SECS: u64 = 24 * 3600;
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Runs executors, one after the other, until `stopping` says so.
pub(crate) async fn run(
    services: Arc<Services>,
    runtime: Arc<RuntimeEnv>,
    vcores: usize,
    mut stopping: watch::Receiver<bool>,
) {
    let mut last = None;
    while !*stopping.borrow() {
        // The flag is the process's, and the executor before has left it set.
        TERMINATING.store(false, Ordering::Release);
        let ended = match once(&services, &runtime, vcores).await {
            Ok(()) => "it ended".to_owned(),
            Err(error) => error.to_string(),
        };
        if !*stopping.borrow() && last.as_ref() != Some(&ended) {
            tracing::warn!(reason = %ended, "the staged executor begins again");
            last = Some(ended);
        }
        let stop = stopping.wait_for(|stop| *stop);
        if tokio::time::timeout(AGAIN_AFTER, stop).await.is_ok() {
            return;
        }
    }
}

/// Waits for the executor to drain if it was told to by a signal, which it handles by itself; else ends it.
pub(crate) async fn ended(mut task: JoinHandle<()>, patience: Duration) {
    let signalled = TERMINATING.load(Ordering::Acquire);
    if signalled && tokio::time::timeout(patience, &mut task).await.is_ok() {
        return;
    }
    task.abort();
}

async fn once(services: &Arc<Services>, runtime: &Arc<RuntimeEnv>, vcores: usize) -> Result<()> {
    let work = work_folder(services).map_err(|error| {
        Error::new(Code::NoSpace, format!("no folder for shuffle files: {error}"))
            .hint("set engine.spill_dir")
    })?;
    let config = process_config(services, runtime, vcores, work.path())?;
    start_executor_process(Arc::new(config)).await.map_err(|error| {
        Error::new(Code::Unreachable, format!("staged executor: {error}"))
            .hint("is cluster.ballista_scheduler the address of the scheduler?")
    })
}

fn work_folder(services: &Services) -> io::Result<tempfile::TempDir> {
    let builder = || tempfile::Builder::new().prefix("tidemill-shuffle-").to_owned();
    match &services.config.engine.spill_dir {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            builder().tempdir_in(folder)
        }
        None => builder().tempdir(),
    }
}

fn process_config(
    services: &Arc<Services>,
    runtime: &Arc<RuntimeEnv>,
    vcores: usize,
    work: &Path,
) -> Result<ExecutorProcessConfig> {
    let cluster = &services.config.cluster;
    let scheduler = cluster.ballista_scheduler.rsplit_once(':');
    let scheduler = scheduler.and_then(|(host, port)| Some((host.to_owned(), port.parse::<u16>().ok()?)));
    let Some((scheduler_host, scheduler_port)) = scheduler else {
        let message =
            format!("cluster.ballista_scheduler = `{}` is not host:port", cluster.ballista_scheduler);
        return Err(Error::new(Code::Config, message).hint("for example 127.0.0.1:50050"));
    };
    let (port, grpc_port) = free_ports(&cluster.executor_host)
        .map_err(|error| Error::new(Code::Config, format!("cluster.executor_host: {error}")))?;
    let state = session::session_state(services, runtime.clone()).build();
    let (for_config, for_runtime) = (services.clone(), runtime.clone());
    Ok(ExecutorProcessConfig {
        bind_host: cluster.executor_host.clone(),
        external_host: Some(cluster.executor_host.clone()),
        port,
        grpc_port,
        scheduler_host,
        scheduler_port,
        vcores,
        task_scheduling_policy: TaskSchedulingPolicy::PushStaged,
        work_dir: Some(work.to_string_lossy().into_owned()),
        job_data_ttl_seconds: JOB_DATA_TTL_SECS,
        job_data_clean_up_interval_seconds: CLEAN_UP_SECS,
        grpc_max_decoding_message_size: MESSAGE_BYTES,
        grpc_max_encoding_message_size: MESSAGE_BYTES,
        executor_heartbeat_interval_seconds: HEARTBEAT_SECS,
        // Zero leaves the memory pool to the runtime, which is the one of the process.
        memory_pool_size: Some(0),
        override_execution_engine: Some(Arc::new(Execution::new(runtime.clone()))),
        override_function_registry: Some(Arc::new(BallistaFunctionRegistry::from(&state))),
        override_runtime_producer: Some(Arc::new(move |_| Ok(for_runtime.clone()))),
        override_config_producer: Some(Arc::new(move || {
            session::session_config(&for_config)
                .upgrade_for_ballista()
                .with_ballista_adaptive_query_planner(false)
        })),
        override_physical_codec: Some(Arc::new(Codec::over(Arc::new(
            BallistaPhysicalExtensionCodec::default(),
        )))),
        ..ExecutorProcessConfig::default()
    })
}

/// Ballista must be told its ports. They are free at this moment.
fn free_ports(host: &str) -> io::Result<(u16, u16)> {
    let (first, second) = (TcpListener::bind((host, 0))?, TcpListener::bind((host, 0))?);
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}
