//! An ingest that makes its table, and does not come to its end, leaves no table behind.

use super::define::Definer;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tidemill_sql::TableName;

/// A table whose rows are not committed yet. Dropped before they are, it is taken back: its query failed, was
/// cancelled, or its client is gone.
pub(super) struct Unfilled {
    /// `None` once there is nothing to take back.
    definer: Option<Definer>,
    table: TableName,
}

impl Unfilled {
    pub(super) fn new(definer: Definer, table: TableName) -> Self {
        Self { definer: Some(definer), table }
    }

    /// The count of rows, which comes after the commit.
    pub(super) fn watch(self, mut count: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let schema = count.schema();
        let watched = async move {
            let first = count.next().await;
            match &first {
                Some(Ok(_)) => self.keep(),
                _ => self.undo().await,
            }
            futures::stream::iter(first).chain(count)
        };
        Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(watched).flatten()))
    }

    fn keep(mut self) {
        self.definer.take();
    }

    pub(super) async fn undo(mut self) {
        if let Some(definer) = self.definer.take() {
            take_back(definer, &self.table).await;
        }
    }
}

impl Drop for Unfilled {
    fn drop(&mut self) {
        let (Some(definer), table) = (self.definer.take(), self.table.clone()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { take_back(definer, &table).await });
        }
    }
}

async fn take_back(definer: Definer, table: &TableName) {
    if let Err(error) = definer.drop_table(table, true).await {
        tracing::warn!(%table, %error, "a table that was not filled could not be dropped again");
    }
}
