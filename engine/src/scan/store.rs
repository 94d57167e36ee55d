//! What is kept, under which name, and for how long.

use super::encoded::Encoded;
use arrow::datatypes::FieldRef;
use object_store::ObjectMeta;
use parquet::file::metadata::ParquetMetaData;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// A row group is kept when it is asked for again after this many times: what is read once or twice, as by a look
/// at a few rows, costs nothing extra and drives nothing out.
const TOUCHES_BEFORE: u8 = 1;

/// A row group's columns may take one part in so many of the cache.
const LARGEST_GROUP_SHARE: u64 = 16;

const METADATA_BYTES: u64 = 64 << 20;
const TOUCHED_GROUPS: usize = 1 << 17;
/// About the size of an entry, from which the cache takes how many there will be.
const USUAL_COLUMN_BYTES: u64 = 1 << 20;

/// A file as it was at one time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    store: String,
    path: String,
    size: u64,
    modified_ns: Option<i64>,
    tag: Option<String>,
}

impl FileId {
    pub(super) fn of(store: &str, meta: &ObjectMeta) -> Arc<Self> {
        Arc::new(Self {
            store: store.to_owned(),
            path: meta.location.to_string(),
            size: meta.size,
            modified_ns: meta.last_modified.timestamp_nanos_opt(),
            tag: meta.e_tag.clone(),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GroupId {
    file: Arc<FileId>,
    group: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ColumnId {
    group: GroupId,
    /// As the table has it: another type is another column.
    field: FieldRef,
}

/// All rows of a row group's column, segment by segment.
pub(super) type Column = Arc<Vec<Encoded>>;

#[derive(Clone)]
struct Bytes;

impl Weighter<ColumnId, Column> for Bytes {
    fn weight(&self, _: &ColumnId, column: &Column) -> u64 {
        column.iter().map(|segment| segment.bytes() as u64).sum::<u64>() + 256
    }
}

impl Weighter<Arc<FileId>, Arc<ParquetMetaData>> for Bytes {
    fn weight(&self, _: &Arc<FileId>, metadata: &Arc<ParquetMetaData>) -> u64 {
        metadata.memory_size() as u64 + 256
    }
}

/// Decoded columns and footers of this process, for all sessions.
pub struct DataCache {
    columns: Cache<ColumnId, Column, Bytes>,
    metadata: Cache<Arc<FileId>, Arc<ParquetMetaData>, Bytes>,
    touches: Cache<GroupId, u8>,
    capacity: u64,
}

impl std::fmt::Debug for DataCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataCache").field("capacity", &self.capacity).field("bytes", &self.bytes()).finish()
    }
}

impl DataCache {
    /// Keeps up to `bytes` of columns.
    pub fn new(bytes: u64) -> Self {
        let columns = usize::try_from(bytes / USUAL_COLUMN_BYTES).unwrap_or(usize::MAX).max(64);
        Self {
            columns: Cache::with_weighter(columns, bytes, Bytes),
            metadata: Cache::with_weighter(1024, METADATA_BYTES, Bytes),
            touches: Cache::new(TOUCHED_GROUPS),
            capacity: bytes,
        }
    }

    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether it is worth to decode so many bytes at once to keep them: what is too large for the cache would be
    /// decoded again and again, and outside the memory of the query.
    pub(super) fn takes(&self, bytes: u64) -> bool {
        bytes <= self.capacity / LARGEST_GROUP_SHARE
    }

    /// Bytes of columns that are kept now.
    pub fn bytes(&self) -> u64 {
        self.columns.weight()
    }

    pub(super) fn metadata(&self, file: &Arc<FileId>) -> Option<Arc<ParquetMetaData>> {
        self.metadata.get(file)
    }

    pub(super) fn keep_metadata(&self, file: &Arc<FileId>, metadata: &Arc<ParquetMetaData>) {
        self.metadata.insert(file.clone(), metadata.clone());
    }

    pub(super) fn column(&self, file: &Arc<FileId>, group: usize, field: &FieldRef) -> Option<Column> {
        let group = GroupId { file: file.clone(), group };
        self.columns.get(&ColumnId { group, field: field.clone() })
    }

    pub(super) fn keep(&self, file: &Arc<FileId>, group: usize, field: &FieldRef, column: Column) {
        let group = GroupId { file: file.clone(), group };
        self.columns.insert(ColumnId { group, field: field.clone() }, column);
    }

    /// Whether the row group was asked for often enough to be kept.
    pub(super) fn touch(&self, file: &Arc<FileId>, group: usize) -> bool {
        let id = GroupId { file: file.clone(), group };
        let touches = self.touches.get(&id).unwrap_or_default();
        if touches < TOUCHES_BEFORE {
            self.touches.insert(id, touches + 1);
        }
        touches >= TOUCHES_BEFORE
    }
}
