//! Sets of texts that a process has numbered, as bitmaps of their ids.

use super::keys::Key;
use super::sets::{Set, encode, take};
use crate::dictionary::{Dictionary, Text};
use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, UInt32Type};
use datafusion::common::{Result as DfResult, internal_datafusion_err, not_impl_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use roaring::RoaringBitmap;
use std::sync::Arc;

/// The first byte of the bytes of a set of ids: the number of their dictionary follows, then the bitmap.
const IDS: u8 = 2;

/// Ids of one dictionary, as a task of this process has handed them on.
pub(super) struct SentIds {
    number: u64,
    ids: RoaringBitmap,
}

impl SentIds {
    /// `None` when these are the bytes of another kind of set.
    pub(super) fn of(bytes: &[u8]) -> DfResult<Option<Self>> {
        let Some((&IDS, rest)) = bytes.split_first() else { return Ok(None) };
        let Some((number, ids)) = rest.split_first_chunk() else {
            return Err(internal_datafusion_err!("the bytes of a set of ids are cut off"));
        };
        let ids = RoaringBitmap::deserialize_from(ids)?;
        Ok(Some(Self { number: u64::from_le_bytes(*number), ids }))
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len() as usize
    }

    /// Both, if they are of one dictionary.
    pub(super) fn union(self, other: Self) -> Option<Self> {
        let same = self.number == other.number;
        same.then(|| Self { number: self.number, ids: self.ids | other.ids })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + size_of::<u64>() + self.ids.serialized_size());
        bytes.push(IDS);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        let written = self.ids.serialize_into(&mut bytes);
        debug_assert!(written.is_ok(), "memory takes what is written");
        bytes
    }

    /// The texts, whose dictionary some node of the plan holds.
    pub(super) fn add_to<K: Key>(&self, set: &mut Set<K>) -> DfResult<usize> {
        let Some(dictionary) = Dictionary::numbered(self.number) else {
            return Err(internal_datafusion_err!("the dictionary of a set of ids is gone"));
        };
        Ok(add(set, &dictionary, &self.ids))
    }
}

/// The bytes of the set of these texts, which differ: no set has to be built for that.
fn as_texts(dictionary: &Dictionary, ids: &RoaringBitmap) -> Vec<u8> {
    let texts = dictionary.texts();
    let (mut keys, mut long) = (Vec::with_capacity(ids.len() as usize * i128::BYTES), Vec::new());
    for id in ids {
        match texts.text(id) {
            Text::View(view) => keys.extend_from_slice(&view.to_le_bytes()),
            Text::Long(text) => long.push(text),
        }
    }
    encode::<i128>(&keys, &long)
}

/// How many bytes larger the set is now.
fn add<K: Key>(set: &mut Set<K>, dictionary: &Dictionary, ids: &RoaringBitmap) -> usize {
    let texts = dictionary.texts();
    let grown = ids.iter().map(|id| match texts.text(id) {
        Text::View(view) => set.insert_key(K::read(&view.to_le_bytes())),
        Text::Long(text) => set.insert_text(text),
    });
    grown.sum()
}

/// The accumulator of all groups of a task that reads ids, and texts where they have none.
pub(crate) struct IdSets {
    dictionary: Arc<Dictionary>,
    /// Whether what is handed on stays in this process, so that ids may.
    stays: bool,
    groups: Vec<Group>,
    /// About how many the groups take.
    bytes: usize,
}

#[derive(Default)]
struct Group {
    ids: Ids,
    /// What was in no dictionary when it came.
    others: Set<i128>,
}

/// Of so many ids on they are bits, without a container to be found first.
const FEWEST_BITS: usize = 1 << 12;

enum Ids {
    Few(RoaringBitmap),
    Many(Vec<u64>),
}

impl Default for Ids {
    fn default() -> Self {
        Self::Few(RoaringBitmap::new())
    }
}

impl Ids {
    /// How many bytes larger it is now, about.
    fn insert(&mut self, id: u32) -> usize {
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        match self {
            Ids::Many(words) => {
                let before = words.len();
                if word >= before {
                    words.resize(word + 1, 0);
                }
                words[word] |= bit;
                (words.len() - before) * size_of::<u64>()
            }
            Ids::Few(ids) => {
                let fresh = ids.insert(id);
                if fresh && ids.len() as usize == FEWEST_BITS {
                    *self = Ids::Many(bits(ids));
                }
                usize::from(fresh) * size_of::<u16>()
            }
        }
    }

    fn into_bitmap(self) -> RoaringBitmap {
        match self {
            Ids::Few(ids) => ids,
            Ids::Many(words) => {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                RoaringBitmap::from_lsb0_bytes(0, &bytes)
            }
        }
    }
}

fn bits(ids: &RoaringBitmap) -> Vec<u64> {
    let mut words = vec![0; ids.max().map_or(0, |most| most as usize / 64 + 1)];
    ids.iter().for_each(|id| words[id as usize / 64] |= 1 << (id % 64));
    words
}

impl IdSets {
    pub(crate) fn new(dictionary: Arc<Dictionary>, stays: bool) -> Self {
        Self { dictionary, stays, groups: Vec::new(), bytes: 0 }
    }

    fn emit(&mut self, emit_to: EmitTo) -> Vec<Group> {
        take(&mut self.groups, &mut self.bytes, emit_to)
    }

    fn sent(&self, group: Group) -> Vec<u8> {
        let (ids, mut others) = (group.ids.into_bitmap(), group.others);
        if others.is_empty() {
            return match self.stays {
                true => SentIds { number: self.dictionary.number(), ids }.bytes(),
                false => as_texts(&self.dictionary, &ids),
            };
        }
        // A text may have been met both before and after it was numbered: as a key it is there once.
        add(&mut others, &self.dictionary, &ids);
        others.bytes()
    }
}

impl GroupsAccumulator for IdSets {
    fn update_batch(
        &mut self,
        columns: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> DfResult<()> {
        debug_assert!(opt_filter.is_none(), "aggregations with filters do not take ids");
        self.groups.resize_with(self.groups.len().max(total_num_groups), Group::default);
        let column = &columns[0];
        let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
        let rows = group_indices.iter().enumerate();
        let rows = rows.filter(|(row, _)| nulls.is_none_or(|nulls| nulls.is_valid(*row)));
        if *column.data_type() == DataType::UInt32 {
            let ids = column.as_primitive::<UInt32Type>().values();
            self.bytes += rows.map(|(row, group)| self.groups[*group].ids.insert(ids[row])).sum::<usize>();
            return Ok(());
        }
        let mut grown = 0;
        let (texts, known) = (column.as_string_view(), self.dictionary.texts());
        for (row, group) in rows {
            let (text, group) = (texts.value(row).as_bytes(), &mut self.groups[*group]);
            grown += match known.id(text) {
                Some(id) => group.ids.insert(id),
                None => group.others.insert_bytes(text),
            };
        }
        self.bytes += grown;
        Ok(())
    }

    fn merge_batch(&mut self, _: &[ArrayRef], _: &[usize], _: usize) -> DfResult<()> {
        not_impl_err!("sets of ids are merged by the final aggregation")
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> DfResult<ArrayRef> {
        let counts = self.emit(emit_to).into_iter().map(|group| {
            let mut all = group.others;
            add(&mut all, &self.dictionary, &group.ids.into_bitmap());
            all.len() as i64
        });
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }

    fn state(&mut self, emit_to: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let mut sets = BinaryViewBuilder::new();
        for group in self.emit(emit_to) {
            sets.append_value(self.sent(group));
        }
        Ok(vec![Arc::new(sets.finish())])
    }

    fn convert_to_state(&self, _: &[ArrayRef], _: Option<&BooleanArray>) -> DfResult<Vec<ArrayRef>> {
        not_impl_err!("rows with ids are always aggregated")
    }

    fn size(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<Group>()
    }
}
