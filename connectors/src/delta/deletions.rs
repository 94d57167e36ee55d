//! Deletion vectors: which rows of a data file are deleted, kept beside the file or in the log itself.

use super::error::from_delta;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor as KernelDescriptor;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::DeletionVectorDescriptor;
use deltalake_core::logstore::LogStoreRef;
use tidemill_core::{Code, Error, Result};
use tidemill_engine::exec::RowRuns;
use url::Url;

/// Says which rows of a file of `rows` rows count.
pub(super) async fn rows_left(
    log_store: &LogStoreRef,
    table: &Url,
    vector: DeletionVectorDescriptor,
    rows: Option<u64>,
) -> Result<RowRuns> {
    let place = |error: Error| error.context(format!("Delta table {table}"));
    let rows = rows.ok_or_else(|| {
        place(Error::new(Code::Corrupt, "a file with a deletion vector does not say how many rows it has"))
    })?;
    let deleted = deleted_rows(log_store, table, vector).await.map_err(place)?;
    RowRuns::without(deleted, rows).map_err(place)
}

/// Numbers of the rows that a vector deletes, growing.
pub(super) async fn deleted_rows(
    log_store: &LogStoreRef,
    table: &Url,
    vector: DeletionVectorDescriptor,
) -> Result<Vec<u64>> {
    let fail = |error| from_delta(DeltaTableError::KernelError(error), table);
    let vector = KernelDescriptor::try_from(vector).map_err(fail)?;
    let (storage, mut folder) = (log_store.engine(None).storage_handler(), table.clone());
    // The kernel joins paths to it, so it has to end like a folder.
    if !folder.path().ends_with('/') {
        folder.set_path(&format!("{}/", folder.path()));
    }
    // The kernel's storage blocks.
    let read = tokio::task::spawn_blocking(move || vector.row_indexes(storage, &folder)).await;
    read.map_err(|error| Error::internal(format!("reading a deletion vector: {error}")))?.map_err(fail)
}
