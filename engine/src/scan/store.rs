//! What is kept, under which name, and for how long.

use super::encoded::Encoded;
use crate::dictionary::Dictionary;
use arrow::array::AsArray;
use arrow::datatypes::FieldRef;
use datafusion::common::Result as DfResult;
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

/// All dictionaries together may take one part in so many of the cache's bytes, beside them.
const DICTIONARIES_SHARE: u64 = 8;
/// About how many there are.
const DICTIONARIES: usize = 32;

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
    /// The number of the dictionary whose ids stand for the texts.
    ids_of: Option<u64>,
}

/// A column of texts in all files of a folder and of the partitions below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TextsId {
    store: String,
    folder: String,
    column: String,
}

impl TextsId {
    pub(super) fn of(store: &str, meta: &ObjectMeta, field: &FieldRef) -> Self {
        let parts: Vec<_> = meta.location.parts().collect();
        let folders = parts.iter().take(parts.len().saturating_sub(1)).map(AsRef::as_ref);
        let folder: Vec<&str> = folders.take_while(|folder| !folder.contains('=')).collect();
        Self { store: store.to_owned(), folder: folder.join("/"), column: field.name().clone() }
    }
}

impl ColumnId {
    fn new(file: &Arc<FileId>, group: usize, field: &FieldRef, ids_of: Option<u64>) -> Self {
        Self { group: GroupId { file: file.clone(), group }, field: field.clone(), ids_of }
    }
}

#[derive(Clone)]
struct KeptDictionary {
    /// `None` for a column whose texts hardly come twice, or are too many.
    dictionary: Option<Arc<Dictionary>>,
    /// As it was kept: it grows, and the cache wants a weight that stays.
    bytes: u64,
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

impl Weighter<TextsId, KeptDictionary> for Bytes {
    fn weight(&self, _: &TextsId, kept: &KeptDictionary) -> u64 {
        kept.bytes
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
    dictionaries: Cache<TextsId, KeptDictionary, Bytes>,
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
            dictionaries: Cache::with_weighter(DICTIONARIES, bytes / DICTIONARIES_SHARE, Bytes),
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

    /// Bytes of columns and dictionaries that are kept now.
    pub fn bytes(&self) -> u64 {
        self.columns.weight() + self.dictionaries.weight()
    }

    pub(super) fn metadata(&self, file: &Arc<FileId>) -> Option<Arc<ParquetMetaData>> {
        self.metadata.get(file)
    }

    pub(super) fn keep_metadata(&self, file: &Arc<FileId>, metadata: &Arc<ParquetMetaData>) {
        self.metadata.insert(file.clone(), metadata.clone());
    }

    pub(super) fn column(&self, file: &Arc<FileId>, group: usize, field: &FieldRef) -> Option<Column> {
        self.columns.get(&ColumnId::new(file, group, field, None))
    }

    pub(super) fn keep(&self, file: &Arc<FileId>, group: usize, field: &FieldRef, column: Column) {
        self.columns.insert(ColumnId::new(file, group, field, None), column);
    }

    /// What numbers the texts of a column; `None` where that is not worth it.
    pub(super) fn dictionary(&self, texts: &TextsId) -> Option<Arc<Dictionary>> {
        match self.dictionaries.get(texts) {
            Some(known) => known.dictionary,
            None => {
                let fresh = Some(Dictionary::new());
                self.keep_dictionary(texts, fresh.clone());
                fresh
            }
        }
    }

    fn keep_dictionary(&self, texts: &TextsId, dictionary: Option<Arc<Dictionary>>) {
        let bytes = dictionary.as_ref().map_or(0, |dictionary| dictionary.texts().size() as u64) + 256;
        self.dictionaries.insert(texts.clone(), KeptDictionary { dictionary, bytes });
    }

    /// A column of texts as ids of the dictionary; `None` where they are not numbered.
    pub(super) async fn ids(
        &self,
        file: &Arc<FileId>,
        group: usize,
        field: &FieldRef,
        column: &Column,
        (texts, dictionary): (&TextsId, &Arc<Dictionary>),
    ) -> DfResult<Option<Column>> {
        let id = ColumnId::new(file, group, field, Some(dictionary.number()));
        if let Some(kept) = self.columns.get(&id) {
            return Ok(Some(kept));
        }
        let most_bytes = usize::try_from(self.capacity / DICTIONARIES_SHARE / 2).unwrap_or(usize::MAX);
        let mut ids = Vec::with_capacity(column.len());
        for segment in column.iter() {
            let Some(numbers) = dictionary.intern(segment.decode()?.as_string_view(), most_bytes) else {
                self.keep_dictionary(texts, None);
                return Ok(None);
            };
            ids.push(Encoded::Plain(Arc::new(numbers)));
            // Some milliseconds of computing.
            tokio::task::yield_now().await;
        }
        // Another task may have found that it is not.
        let given_up = self.dictionaries.get(texts).is_some_and(|kept| kept.dictionary.is_none());
        let worth_it = !given_up && dictionary.is_worth_it();
        self.keep_dictionary(texts, worth_it.then(|| dictionary.clone()));
        let ids = Arc::new(ids);
        self.columns.insert(id, ids.clone());
        Ok(Some(ids))
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
