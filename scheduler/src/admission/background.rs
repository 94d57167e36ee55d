//! The threads of heavy queries in this process. The system runs them when the others leave time, so that a point
//! query is answered while a heavy one computes on every core.

use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use futures::StreamExt;
use tidemill_core::{Error, Result};
use tidemill_engine::{Execution, priority};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// A runtime whose threads yield to all others of the process.
#[derive(Debug)]
pub struct Background {
    handle: Handle,
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
}

impl Background {
    pub fn new(threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("tidemill-heavy")
            .on_thread_start(|| priority::yield_to_others(priority::BACKGROUND))
            .enable_all()
            .build()
            .map_err(|error| Error::internal(format!("no threads for heavy queries: {error}")))?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Starts something here, and polls its rows here; whoever reads them waits on threads of its own.
    pub async fn run(
        &self,
        starting: impl Future<Output = Result<Execution>> + Send + 'static,
    ) -> Result<Execution> {
        let started = AbortOnDropHandle::new(self.handle.spawn(starting)).await;
        let running =
            started.map_err(|error| Error::internal(format!("the job did not start: {error}")))??;
        let mut stream = running.stream;
        let mut polled = RecordBatchReceiverStream::builder(stream.schema(), 1);
        let batches = polled.tx();
        polled.spawn_on(
            async move {
                while let Some(batch) = stream.next().await {
                    // The reader is gone, and with it this task.
                    if batches.send(batch).await.is_err() {
                        break;
                    }
                }
                Ok(())
            },
            &self.handle,
        );
        Ok(Execution { stream: polled.build(), ..running })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A runtime must not wait for its threads where others are polled.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_are_nicer_than_ours() {
        let background = Background::new(1).unwrap();
        let there = background.handle().spawn(async { priority::niceness() }).await.unwrap();
        assert!(there > priority::niceness() && there >= 15, "{there}");
    }
}
