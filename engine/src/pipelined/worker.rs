//! The worker: runs tasks that a coordinator sends, for other workers or the coordinator to read.

use super::carried::Carried;
use super::channels::Channels;
use crate::codec::Codec;
use crate::{Services, priority, scan, session, to_datafusion};
use async_trait::async_trait;
use datafusion::common::Result as DfResult;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use datafusion_distributed::{
    DistributedExt, Worker, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerPlanRewriteHandler,
    WorkerQueryContext, WorkerSessionBuilder,
};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tidemill_core::{Code, Error, Result};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A worker that listens. It has a runtime of its own, because plans are polled on the server's threads and
/// would keep everything else of the process waiting.
#[derive(Debug)]
pub struct WorkerServer {
    address: SocketAddr,
    stop: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
}

impl WorkerServer {
    /// Serves on `listener` with `threads` threads. `runtime` is the one of the process.
    pub fn start(
        listener: TcpListener,
        services: Arc<Services>,
        runtime: Arc<RuntimeEnv>,
        codec: Codec,
        threads: usize,
    ) -> Result<Self> {
        let broken = |error: std::io::Error| Error::new(Code::Unreachable, format!("worker: {error}"));
        let address = listener.local_addr().map_err(broken)?;
        listener.set_nonblocking(true).map_err(broken)?;
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("pipelined")
            .on_thread_start(|| priority::yield_to_others(priority::WORKER))
            .enable_all()
            .build()
            .map_err(broken)?;
        let usual = session::session_state(&services, runtime.clone()).build();
        let sessions = Sessions { services, codec, channels: Channels::default(), usual };
        let worker =
            Worker::from_session_builder(sessions).with_runtime_env(runtime).with_version(session::build());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("pipelined-worker".to_owned())
            .spawn(move || {
                let patience = server.block_on(serve(worker, listener, stopped));
                server.shutdown_timeout(patience);
            })
            .map_err(broken)?;
        Ok(Self { address, stop, thread })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new tasks, waits for those that run, but no longer than `patience`. Blocks.
    pub fn stop(self, patience: Duration) {
        // The thread may have ended by itself.
        let _ended = self.stop.send(patience);
        if self.thread.join().is_err() {
            tracing::error!("the pipelined worker's thread panicked");
        }
    }
}

/// Serves until it is told to stop; gives what is left of the patience.
async fn serve(worker: Worker, listener: TcpListener, stopped: oneshot::Receiver<Duration>) -> Duration {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the pipelined worker cannot listen");
            return Duration::ZERO;
        }
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let (drain, drained) = oneshot::channel::<()>();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .add_service(worker.into_worker_server())
        .serve_with_incoming_shutdown(incoming, async {
            drained.await.ok();
        });
    let mut serving = std::pin::pin!(serving);
    let patience = tokio::select! {
        ended = &mut serving => {
            if let Err(error) = ended {
                tracing::error!(%error, "the pipelined worker ended");
            }
            return Duration::ZERO;
        }
        patience = stopped => patience.unwrap_or_default(),
    };
    drop(drain);
    if patience.is_zero() || tokio::time::timeout(patience, serving).await.is_err() {
        tracing::warn!("the pipelined worker stopped before its tasks ended");
    }
    Duration::ZERO
}

/// Sessions of tasks: this node's services and functions, the query's settings.
struct Sessions {
    services: Arc<Services>,
    codec: Codec,
    channels: Channels,
    /// With all functions. It is copied for each task: to build one takes longer than a small task runs.
    usual: SessionState,
}

#[async_trait]
impl WorkerSessionBuilder for Sessions {
    async fn build_session_state(&self, mut query: WorkerQueryContext) -> DfResult<SessionState> {
        let mut config = query.builder.config().take().unwrap_or_default();
        config.set_distributed_option_extension_from_headers::<Carried>(&query.headers)?;
        let carried = config
            .options()
            .extensions
            .get::<Carried>()
            .cloned()
            .ok_or_else(|| to_datafusion(Error::internal("a query came without its settings")))?;
        carried.apply(config.options_mut())?;
        config.set_extension(self.services.clone());
        config.set_distributed_user_codec(self.codec.clone());
        config.set_distributed_channel_resolver(self.channels.clone());
        let runtime = self.usual.runtime_env().clone();
        config.set_distributed_worker_plan_rewrite_handler(PrepareScans { runtime });
        let mut state = self.usual.clone();
        *state.config_mut() = config;
        Ok(state)
    }
}

struct PrepareScans {
    runtime: Arc<RuntimeEnv>,
}

impl WorkerPlanRewriteHandler for PrepareScans {
    fn rewrite_worker_plan(
        &self,
        event: WorkerPlanRewriteEvent<'_>,
    ) -> DfResult<WorkerPlanRewriteEventResponse> {
        let context = TaskContext::default()
            .with_session_config(event.session_config.clone())
            .with_runtime(self.runtime.clone());
        Ok(WorkerPlanRewriteEventResponse::new(scan::prepare(
            event.plan,
            &Arc::new(context),
            scan::Rows::Travel,
        )?))
    }
}
