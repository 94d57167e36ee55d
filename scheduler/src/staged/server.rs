//! Ballista's scheduler, embedded.

use super::Server;
use super::slots::Slots;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::SessionConfigExt;
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::cluster::memory::InMemoryJobState;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::{create_scheduler, start_grpc_service_with_listener};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::codec::Codec;
use tidemill_engine::{Services, session};
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::task::JoinHandle;

const MESSAGE_BYTES: u32 = 128 << 20;
/// Executors beat every two seconds.
const EXECUTOR_TIMEOUT_SECS: u64 = 8;
const EXPIRE_INTERVAL_SECS: u64 = 1;
/// Results are cleaned up as soon as they are fetched; this is for those that nobody fetched.
const FINISHED_DATA_SECS: u64 = 3600;
const FINISHED_STATE_SECS: u64 = 120;
const BACKLOG: u32 = 1024;

/// The settings with which a plan for the staged engine is made and run, over the session's own.
pub fn plan_settings(config: SessionConfig) -> SessionConfig {
    config.upgrade_for_ballista().with_ballista_adaptive_query_planner(false)
}

pub(super) async fn start(
    services: &Arc<Services>,
    runtime: &Arc<RuntimeEnv>,
) -> Result<(Server, JoinHandle<()>)> {
    let listener = listen(&services.config.cluster.ballista_scheduler).await?;
    let address = listener.local_addr().map_err(Error::internal)?;
    let config = Arc::new(config(address));
    let cluster =
        BallistaCluster::new(Arc::new(Slots::default()), Arc::new(jobs(services, runtime, &config)));
    let server: Server = create_scheduler(cluster, config).await.map_err(broken)?;
    let serving = tokio::spawn({
        let server = server.clone();
        async move {
            if let Err(error) = start_grpc_service_with_listener(listener, server).await {
                tracing::error!(%error, "the staged engine's scheduler ended");
            }
        }
    });
    Ok((server, serving))
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("staged engine: {error}"))
}

/// Ballista's own state of jobs, with our sessions.
fn jobs(services: &Arc<Services>, runtime: &Arc<RuntimeEnv>, config: &SchedulerConfig) -> InMemoryJobState {
    let (for_config, for_sessions) = (services.clone(), services.clone());
    let runtime = runtime.clone();
    InMemoryJobState::new(
        config.scheduler_id.clone(),
        Arc::new(move |config| {
            Ok(session::session_state(&for_sessions, runtime.clone()).with_config(config).build())
        }),
        Arc::new(move || plan_settings(session::session_config(&for_config))),
    )
}

fn config(address: SocketAddr) -> SchedulerConfig {
    SchedulerConfig {
        external_host: address.ip().to_string(),
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        scheduling_policy: TaskSchedulingPolicy::PushStaged,
        finished_job_data_clean_up_interval_seconds: FINISHED_DATA_SECS,
        finished_job_state_clean_up_interval_seconds: FINISHED_STATE_SECS,
        grpc_server_max_decoding_message_size: MESSAGE_BYTES,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES,
        grpc_client_max_message_size: MESSAGE_BYTES,
        executor_timeout_seconds: EXECUTOR_TIMEOUT_SECS,
        expire_dead_executor_interval_seconds: EXPIRE_INTERVAL_SECS,
        no_executors_grace_period_seconds: 2 * EXECUTOR_TIMEOUT_SECS,
        override_physical_codec: Some(Arc::new(Codec::over(Arc::new(
            BallistaPhysicalExtensionCodec::default(),
        )))),
        ..SchedulerConfig::default()
    }
}

/// Executors report the end of each task here. Accepted connections inherit the listener's TCP_NODELAY;
/// without it the answer to each report waits for a delayed acknowledgement, 40 milliseconds a stage.
async fn listen(address: &str) -> Result<TcpListener> {
    let broken = |error: std::io::Error| {
        Error::new(Code::Config, format!("cluster.ballista_scheduler = `{address}`: {error}"))
            .hint("give it an address of this machine and a free port")
    };
    let mut addresses = lookup_host(address).await.map_err(broken)?;
    let Some(socket_address) = addresses.next() else {
        return Err(broken(std::io::Error::other("no such host")));
    };
    let socket = match socket_address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(broken)?;
    socket.set_reuseaddr(true).map_err(broken)?;
    socket.set_nodelay(true).map_err(broken)?;
    socket.bind(socket_address).map_err(broken)?;
    socket.listen(BACKLOG).map_err(broken)
}
