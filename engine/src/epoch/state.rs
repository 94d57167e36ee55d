//! Keyed state: Arrow IPC files per bucket in the checkpoint store, and a bounded cache in front of them.

use crate::epoch::EpochScope;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;
use tidemill_core::epoch::{StateFile, StateRef};
use tidemill_core::{Code, Epoch, Error, PipelineId, Result};
use uuid::Uuid;

/// Writes and reads the state files of one pipeline.
#[derive(Clone, Debug)]
pub struct StateStore {
    store: Arc<dyn ObjectStore>,
    folder: Path,
}

impl StateStore {
    /// For the pipeline of `scope`, in the checkpoint store of `services`.
    pub fn new(services: &crate::Services, scope: &EpochScope) -> Result<Self> {
        let (store, root) = services.checkpoints()?;
        Ok(Self { folder: scope.folder(&root), store })
    }

    /// Writes one file. Its name is unique, so tries never overwrite each other.
    pub async fn write(
        &self,
        operator: &str,
        bucket: u32,
        epoch: Epoch,
        schema: &SchemaRef,
        batches: &[RecordBatch],
    ) -> Result<StateFile> {
        let body = write_state(schema, batches)?;
        let path = format!("state/{operator}/{bucket:05}/{:020}-{}.arrow", epoch.0, Uuid::new_v4().simple());
        let location = self.locate(&path)?;
        let bytes = body.len() as u64;
        self.store.put(&location, PutPayload::from(body)).await?;
        Ok(StateFile { path, rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(), bytes })
    }

    /// Reads base and deltas, in order.
    pub async fn read(&self, files: &[StateFile]) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for file in files {
            let body = self.store.get(&self.locate(&file.path)?).await?.bytes().await?;
            batches.extend(read_state(&body)?);
        }
        Ok(batches)
    }

    fn locate(&self, path: &str) -> Result<Path> {
        Path::parse(format!("{}/{path}", self.folder))
            .map_err(|error| Error::new(Code::Corrupt, format!("state file `{path}`: {error}")))
    }
}

/// Batches as one compressed Arrow IPC file: it keeps every type that an accumulator may use for its state.
pub fn write_state(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = FileWriter::try_new_with_options(Vec::new(), schema, options)?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

pub fn read_state(body: &[u8]) -> Result<Vec<RecordBatch>> {
    let reader = FileReader::try_new(Cursor::new(body), None)?;
    Ok(reader.collect::<Result<Vec<_>, _>>()?)
}

type Key = (PipelineId, String, u32);

struct Cached {
    state: StateRef,
    bytes: usize,
    used: u64,
    value: Arc<dyn Any + Send + Sync>,
}

/// Keeps the newest state of recently used buckets, up to a number of bytes. Purely an optimisation: what is
/// not here is read from its files.
pub struct StateCache {
    limit_bytes: usize,
    entries: Mutex<(HashMap<Key, Cached>, u64)>,
}

impl std::fmt::Debug for StateCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateCache").field("limit_bytes", &self.limit_bytes).finish_non_exhaustive()
    }
}

impl StateCache {
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, entries: Mutex::default() }
    }

    /// Takes the state out if it is exactly this one, file by file: that of another try of the same epoch is
    /// not. Out, so that an operator may change it in
    /// place: a failed try leaves nothing behind, and the next one reads the files.
    pub fn take<T: Send + Sync + 'static>(&self, pipeline: &PipelineId, state: &StateRef) -> Option<Arc<T>> {
        let key = (pipeline.clone(), state.operator.clone(), state.bucket);
        let cached = self.entries.lock().0.remove(&key)?;
        if cached.state == *state { cached.value.downcast().ok() } else { None }
    }

    /// Keeps `value`, of about `bytes`, as the state that `state` names.
    pub fn put<T: Send + Sync + 'static>(
        &self,
        pipeline: &PipelineId,
        state: &StateRef,
        bytes: usize,
        value: Arc<T>,
    ) {
        let mut guard = self.entries.lock();
        let (entries, clock) = &mut *guard;
        *clock += 1;
        let key = (pipeline.clone(), state.operator.clone(), state.bucket);
        entries.insert(key, Cached { state: state.clone(), bytes, used: *clock, value });
        let mut total: usize = entries.values().map(|cached| cached.bytes).sum();
        while total > self.limit_bytes {
            let Some(oldest) =
                entries.iter().min_by_key(|(_, cached)| cached.used).map(|(key, _)| key.clone())
            else {
                break;
            };
            total -= entries.remove(&oldest).map_or(0, |cached| cached.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    fn state(epoch: u64, bucket: u32) -> StateRef {
        StateRef { operator: "aggregate".to_owned(), bucket, epoch: Epoch(epoch), files: Vec::new() }
    }

    #[test]
    fn files_keep_what_was_written() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let batch =
            RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![Some(1), None]))])
                .unwrap();
        let body = write_state(&schema, std::slice::from_ref(&batch)).unwrap();
        assert_eq!(read_state(&body).unwrap(), vec![batch]);
    }

    #[test]
    fn the_cache_answers_only_for_the_very_state() {
        let cache = StateCache::new(100);
        let pipeline = PipelineId::new("p");
        cache.put(&pipeline, &state(3, 0), 10, Arc::new(7u8));
        assert!(cache.take::<u8>(&pipeline, &state(2, 0)).is_none());
        cache.put(&pipeline, &state(3, 0), 10, Arc::new(7u8));
        let file = StateFile { path: "another try".to_owned(), rows: 1, bytes: 1 };
        let other = StateRef { files: vec![file], ..state(3, 0) };
        assert!(cache.take::<u8>(&pipeline, &other).is_none());
        cache.put(&pipeline, &state(3, 0), 10, Arc::new(7u8));
        assert_eq!(cache.take::<u8>(&pipeline, &state(3, 0)).as_deref(), Some(&7));
        assert!(cache.take::<u8>(&pipeline, &state(3, 0)).is_none());
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = StateCache::new(100);
        let pipeline = PipelineId::new("p");
        for bucket in 0..3 {
            cache.put(&pipeline, &state(1, bucket), 40, Arc::new(bucket));
        }
        assert!(cache.take::<u32>(&pipeline, &state(1, 0)).is_none());
        assert!(cache.take::<u32>(&pipeline, &state(1, 2)).is_some());
    }
}
