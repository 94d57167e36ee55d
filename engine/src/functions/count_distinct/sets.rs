//! The sets of all groups.

use super::ids::SentIds;
use super::keys::{self, Key, LONGEST_VIEW, Values};
use arrow::array::make_view;
use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::common::{Result as DfResult, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use hashbrown::HashSet;
use std::sync::Arc;

/// The first byte of a set's bytes: nothing but keys follows.
const KEYS: u8 = 0;
/// The number of keys, the keys, and then texts, each behind its length.
const KEYS_AND_TEXTS: u8 = 1;
/// Of a number of keys or bytes.
const LENGTH_BYTES: usize = size_of::<u64>();

/// A hash table is between seven sixteenths and seven eighths full.
const BYTES_OF_TABLE_FOR_BYTE: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Set<K> {
    keys: HashSet<K>,
    /// Those that are too long for a key. Boxed, as most sets have none, and there may be millions of sets.
    texts: Option<Box<HashSet<Box<[u8]>>>>,
}

impl<K: Key> Set<K> {
    /// How many bytes larger it is now.
    fn insert(&mut self, values: &Values<K>, row: usize) -> usize {
        match values.long(row) {
            None => self.insert_key(values.keys[row]),
            Some(text) => self.insert_text(text),
        }
    }

    /// The same for a text that no array holds.
    pub(super) fn insert_bytes(&mut self, text: &[u8]) -> usize {
        match text.len() {
            0..=LONGEST_VIEW => self.insert_key(K::read(&make_view(text, 0, 0).to_le_bytes())),
            _ => self.insert_text(text),
        }
    }

    pub(super) fn insert_key(&mut self, key: K) -> usize {
        usize::from(self.keys.insert(key)) * K::BYTES * BYTES_OF_TABLE_FOR_BYTE
    }

    pub(super) fn insert_text(&mut self, text: &[u8]) -> usize {
        let texts = self.texts.get_or_insert_default();
        if texts.contains(text) {
            return 0;
        }
        texts.insert(text.into());
        text.len() + size_of::<Box<[u8]>>() * BYTES_OF_TABLE_FOR_BYTE
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.texts.as_ref().map_or(0, |texts| texts.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut keys = Vec::with_capacity(self.keys.len() * K::BYTES);
        self.keys.iter().for_each(|key| key.write(&mut keys));
        let texts: Vec<&[u8]> = self.texts.iter().flat_map(|texts| texts.iter()).map(AsRef::as_ref).collect();
        encode::<K>(&keys, &texts)
    }
}

/// A set of keys, which stand one behind the other, and of texts that are too long for a key.
pub(super) fn encode<K: Key>(keys: &[u8], texts: &[&[u8]]) -> Vec<u8> {
    let room: usize = texts.iter().map(|text| text.len() + LENGTH_BYTES).sum();
    let mut bytes = Vec::with_capacity(1 + LENGTH_BYTES + keys.len() + room);
    if texts.is_empty() {
        bytes.push(KEYS);
    } else {
        bytes.push(KEYS_AND_TEXTS);
        bytes.extend_from_slice(&((keys.len() / K::BYTES) as u64).to_le_bytes());
    }
    bytes.extend_from_slice(keys);
    for text in texts {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text);
    }
    bytes
}

/// A set as bytes, which another task has made.
struct Encoded<'a> {
    keys: &'a [u8],
    texts: &'a [u8],
}

impl<'a> Encoded<'a> {
    fn of(bytes: &'a [u8], key_bytes: usize) -> Option<Self> {
        match bytes.split_first()? {
            (&KEYS, keys) => Some(Self { keys, texts: &[] }),
            (&KEYS_AND_TEXTS, rest) => {
                let (count, rest) = length(rest)?;
                let (keys, texts) = rest.split_at_checked(count.checked_mul(key_bytes)?)?;
                Some(Self { keys, texts })
            }
            _ => None,
        }
    }

    fn texts(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.texts;
        std::iter::from_fn(move || {
            let (count, behind) = length(rest)?;
            let (text, behind) = behind.split_at_checked(count)?;
            rest = behind;
            Some(text)
        })
    }
}

fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    Some((usize::try_from(u64::from_le_bytes(*length)).ok()?, rest))
}

#[derive(Debug)]
enum Group<K> {
    Set(Set<K>),
    /// What the only task so far has sent; it is taken apart when another one sends something.
    Sent(Box<[u8]>),
}

impl<K> Default for Group<K> {
    fn default() -> Self {
        Self::Set(Set { keys: HashSet::new(), texts: None })
    }
}

impl<K: Key> Group<K> {
    fn count(&self) -> DfResult<i64> {
        let count = match self {
            Group::Set(set) => set.len(),
            Group::Sent(bytes) => match SentIds::of(bytes)? {
                Some(ids) => ids.len(),
                None => {
                    let sent = decoded::<K>(bytes)?;
                    sent.keys.len() / K::BYTES + sent.texts().count()
                }
            },
        };
        Ok(count as i64)
    }

    fn into_bytes(self) -> Box<[u8]> {
        match self {
            Group::Set(set) => set.bytes().into(),
            Group::Sent(bytes) => bytes,
        }
    }

    /// The set, and how many bytes larger it is now.
    fn taken_apart(&mut self) -> DfResult<(&mut Set<K>, usize)> {
        let mut grown = 0;
        if let Group::Sent(bytes) = self {
            let bytes = std::mem::take(bytes);
            let mut set = Set::default();
            grown = merge(&mut set, &bytes)?.saturating_sub(bytes.len());
            *self = Group::Set(set);
        }
        match self {
            Group::Set(set) => Ok((set, grown)),
            Group::Sent(_) => Err(internal_datafusion_err!("a set was not taken apart")),
        }
    }
}

fn decoded<K: Key>(bytes: &[u8]) -> DfResult<Encoded<'_>> {
    Encoded::of(bytes, K::BYTES).ok_or_else(|| internal_datafusion_err!("the bytes of a set are cut off"))
}

/// Two sets of ids as one; `None` where they are not of one dictionary.
fn of_one_dictionary(left: &[u8], right: &[u8]) -> DfResult<Option<Box<[u8]>>> {
    let (Some(left), Some(right)) = (SentIds::of(left)?, SentIds::of(right)?) else { return Ok(None) };
    Ok(left.union(right).map(|both| both.bytes().into()))
}

fn merge<K: Key>(set: &mut Set<K>, bytes: &[u8]) -> DfResult<usize> {
    if let Some(ids) = SentIds::of(bytes)? {
        return ids.add_to(set);
    }
    let sent = decoded::<K>(bytes)?;
    set.keys.reserve(sent.keys.len() / K::BYTES / 2);
    let keys: usize = sent.keys.chunks_exact(K::BYTES).map(|key| set.insert_key(K::read(key))).sum();
    let texts: usize = sent.texts().map(|text| set.insert_text(text)).sum();
    Ok(keys + texts)
}

/// The accumulator of all groups of a task.
#[derive(Debug, Default)]
pub(super) struct Sets<K> {
    groups: Vec<Group<K>>,
    /// About how many the sets take.
    bytes: usize,
}

impl<K: Key> Sets<K> {
    fn grow_to(&mut self, groups: usize) {
        self.groups.resize_with(self.groups.len().max(groups), Group::default);
    }

    fn emit(&mut self, emit_to: EmitTo) -> Vec<Group<K>> {
        take(&mut self.groups, &mut self.bytes, emit_to)
    }
}

/// The groups that are to go, and their share of the bytes with them.
pub(super) fn take<G>(groups: &mut Vec<G>, bytes: &mut usize, emit_to: EmitTo) -> Vec<G> {
    let before = groups.len().max(1);
    let emitted = emit_to.take_needed(groups);
    *bytes -= (*bytes as f64 * (emitted.len() as f64 / before as f64)) as usize;
    emitted
}

impl<K: Key> GroupsAccumulator for Sets<K> {
    fn update_batch(
        &mut self,
        columns: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> DfResult<()> {
        self.grow_to(total_num_groups);
        let column = &columns[0];
        let values = keys::values::<K>(column)?;
        let counted = counted(column, opt_filter);
        let mut grown = 0;
        for (row, group) in group_indices.iter().enumerate() {
            if counted.as_ref().is_none_or(|counted| counted.value(row)) {
                let (set, apart) = self.groups[*group].taken_apart()?;
                grown += apart + set.insert(&values, row);
            }
        }
        self.bytes += grown;
        Ok(())
    }

    fn merge_batch(
        &mut self,
        columns: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> DfResult<()> {
        self.grow_to(total_num_groups);
        let sent = columns[0].as_binary_view();
        for (row, group) in group_indices.iter().enumerate() {
            let (group, bytes) = (&mut self.groups[*group], sent.value(row));
            self.bytes += match group {
                Group::Set(set) if set.is_empty() => {
                    *group = Group::Sent(bytes.into());
                    bytes.len()
                }
                Group::Sent(before) if let Some(both) = of_one_dictionary(before, bytes)? => {
                    let grown = both.len().saturating_sub(before.len());
                    *before = both;
                    grown
                }
                _ => {
                    let (set, apart) = group.taken_apart()?;
                    apart + merge(set, bytes)?
                }
            };
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> DfResult<ArrayRef> {
        let counts = self.emit(emit_to).iter().map(Group::count).collect::<DfResult<Vec<i64>>>()?;
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn state(&mut self, emit_to: EmitTo) -> DfResult<Vec<ArrayRef>> {
        let mut sets = BinaryViewBuilder::new();
        for group in self.emit(emit_to) {
            sets.append_value(group.into_bytes());
        }
        Ok(vec![Arc::new(sets.finish())])
    }

    fn convert_to_state(
        &self,
        columns: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> DfResult<Vec<ArrayRef>> {
        let column = &columns[0];
        let values = keys::values::<K>(column)?;
        let counted = counted(column, opt_filter);
        let mut sets = BinaryViewBuilder::with_capacity(column.len());
        for row in 0..column.len() {
            let mut set = Set::default();
            if counted.as_ref().is_none_or(|counted| counted.value(row)) {
                set.insert(&values, row);
            }
            sets.append_value(set.bytes());
        }
        Ok(vec![Arc::new(sets.finish())])
    }

    fn size(&self) -> usize {
        self.bytes + self.groups.capacity() * size_of::<Group<K>>()
    }
}

/// The rows that are not NULL and that a filter lets through; `None` when these are all.
fn counted(column: &ArrayRef, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
    let valid = column.nulls().map(NullBuffer::inner);
    let wanted = filter.map(|filter| match filter.nulls() {
        Some(nulls) => filter.values() & nulls.inner(),
        None => filter.values().clone(),
    });
    match (valid, wanted) {
        (Some(valid), Some(wanted)) => Some(valid & &wanted),
        (valid, wanted) => wanted.or_else(|| valid.cloned()),
    }
}

/// Of one group, as a window or an aggregation without groups has it.
#[derive(Debug)]
pub(super) struct OneSet<K>(pub(super) Sets<K>);

impl<K: Key> Accumulator for OneSet<K> {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> DfResult<()> {
        self.0.update_batch(columns, &vec![0; columns[0].len()], None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DfResult<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }

    fn evaluate(&mut self) -> DfResult<ScalarValue> {
        let count = self.0.groups.first().map_or(Ok(0), Group::count)?;
        Ok(ScalarValue::Int64(Some(count)))
    }

    fn state(&mut self) -> DfResult<Vec<ScalarValue>> {
        self.0.grow_to(1);
        let state = self.0.state(EmitTo::All)?;
        Ok(vec![ScalarValue::try_from_array(&state[0], 0)?])
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}
