//! The jobs of this process: which run, how they ended, and how to cancel them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tidemill_core::{Code, Error, JobId};
use tidemill_engine::{EngineKind, Progress, from_datafusion, to_datafusion};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Ended jobs that are kept for `tidemill.jobs`.
const HISTORY: usize = 1000;

/// A job, as `tidemill.jobs` shows it.
#[derive(Clone, Debug)]
pub(super) struct JobView {
    pub id: JobId,
    pub user: String,
    pub sql: String,
    pub engine: Option<EngineKind>,
    /// `running`, `done`, `failed` or `cancelled`.
    pub status: &'static str,
    /// Milliseconds since the Unix epoch.
    pub started_at_ms: i64,
    pub finished_at_ms: Option<i64>,
    /// Rows that the client was given.
    pub rows: u64,
    pub progress: Progress,
    pub error: Option<Error>,
}

type Watch = Arc<dyn Fn() -> Progress + Send + Sync>;

struct Running {
    view: JobView,
    cancel: CancellationToken,
    progress: Watch,
}

#[derive(Default)]
struct Book {
    running: HashMap<JobId, Running>,
    ended: VecDeque<JobView>,
}

/// All jobs of this process.
#[derive(Clone, Default)]
pub(super) struct Jobs {
    book: Arc<Mutex<Book>>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("running", &self.book.lock().running.len()).finish_non_exhaustive()
    }
}

impl Jobs {
    /// Follows a job until its stream ends, fails, or is dropped.
    pub(super) fn track(
        &self,
        id: JobId,
        user: &str,
        sql: &str,
        engine: Option<EngineKind>,
        progress: Watch,
        stream: SendableRecordBatchStream,
    ) -> SendableRecordBatchStream {
        let cancel = CancellationToken::new();
        let view = JobView {
            id: id.clone(),
            user: user.to_owned(),
            sql: sql.to_owned(),
            engine,
            status: "running",
            started_at_ms: chrono::Utc::now().timestamp_millis(),
            finished_at_ms: None,
            rows: 0,
            progress: Progress::default(),
            error: None,
        };
        let running = Running { view, cancel: cancel.clone(), progress };
        self.book.lock().running.insert(id.clone(), running);
        Box::pin(Tracked {
            schema: stream.schema(),
            inner: Some(stream),
            cancelled: Box::pin(cancel.cancelled_owned()),
            jobs: self.clone(),
            id,
            rows: 0,
        })
    }

    /// False when no such job is running.
    pub(super) fn cancel(&self, id: &JobId) -> bool {
        match self.book.lock().running.get(id) {
            Some(running) => {
                running.cancel.cancel();
                true
            }
            None => false,
        }
    }

    pub(super) fn progress(&self, id: &JobId) -> Option<Progress> {
        let watch = self.book.lock().running.get(id).map(|running| running.progress.clone())?;
        Some(watch())
    }

    /// Running ones first, then the ended, newest first.
    pub(super) fn list(&self) -> Vec<JobView> {
        let book = self.book.lock();
        let mut views: Vec<JobView> = book
            .running
            .values()
            .map(|running| JobView { progress: (running.progress)(), ..running.view.clone() })
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.started_at_ms));
        views.extend(book.ended.iter().rev().cloned());
        views
    }

    fn end(&self, id: &JobId, rows: u64, status: &'static str, error: Option<Error>) {
        let mut book = self.book.lock();
        let Some(running) = book.running.remove(id) else { return };
        let finished_at_ms = Some(chrono::Utc::now().timestamp_millis());
        let progress = (running.progress)();
        book.ended.push_back(JobView { status, finished_at_ms, rows, progress, error, ..running.view });
        if book.ended.len() > HISTORY {
            book.ended.pop_front();
        }
    }
}

/// A job's stream. Dropping it before its end cancels the job.
struct Tracked {
    schema: SchemaRef,
    inner: Option<SendableRecordBatchStream>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    jobs: Jobs,
    id: JobId,
    rows: u64,
}

impl Stream for Tracked {
    type Item = DfResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if this.cancelled.as_mut().poll(context).is_ready() {
            this.inner = None;
            let error = Error::new(Code::Cancelled, format!("job {} was cancelled", this.id));
            this.jobs.end(&this.id, this.rows, "cancelled", None);
            return Poll::Ready(Some(Err(to_datafusion(error))));
        }
        match futures::ready!(inner.poll_next_unpin(context)) {
            Some(Ok(batch)) => {
                this.rows += batch.num_rows() as u64;
                Poll::Ready(Some(Ok(batch)))
            }
            Some(Err(error)) => {
                this.inner = None;
                let error = from_datafusion(error);
                this.jobs.end(&this.id, this.rows, "failed", Some(error.clone()));
                Poll::Ready(Some(Err(to_datafusion(error))))
            }
            None => {
                this.inner = None;
                this.jobs.end(&this.id, this.rows, "done", None);
                Poll::Ready(None)
            }
        }
    }
}

impl RecordBatchStream for Tracked {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.jobs.end(&self.id, self.rows, "cancelled", None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    fn endless() -> SendableRecordBatchStream {
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::pending()))
    }

    fn track(jobs: &Jobs) -> SendableRecordBatchStream {
        jobs.track(JobId::new("j"), "me", "SELECT 1", None, Arc::new(Progress::default), endless())
    }

    #[tokio::test]
    async fn a_cancelled_job_ends_with_the_reason() {
        let jobs = Jobs::default();
        let mut stream = track(&jobs);
        assert!(jobs.cancel(&JobId::new("j")));
        let error = from_datafusion(stream.next().await.unwrap().unwrap_err());
        assert_eq!(error.code, Code::Cancelled);
        assert!(stream.next().await.is_none());
        assert_eq!(jobs.list()[0].status, "cancelled");
        assert!(!jobs.cancel(&JobId::new("j")));
    }

    #[tokio::test]
    async fn a_dropped_stream_cancels_its_job() {
        let jobs = Jobs::default();
        let stream = track(&jobs);
        assert_eq!(jobs.list()[0].status, "running");
        drop(stream);
        assert_eq!(jobs.list()[0].status, "cancelled");
    }
}
