//! The sets of all groups.

use super::keys::{self, Key, Values};
use super::table::Table;
use arrow::array::{Array, ArrayRef, AsArray, BinaryViewBuilder, BooleanArray, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::common::{Result as DfResult, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

/// The first byte of a set's bytes: nothing but keys follows.
const KEYS: u8 = 0;
/// The number of keys, the keys, and then texts, each behind its length.
const KEYS_AND_TEXTS: u8 = 1;
/// Of a number of keys or bytes.
const LENGTH_BYTES: usize = size_of::<u64>();

/// Rows whose places in their sets are asked for together.
const ROWS_AT_ONCE: usize = 64;

#[derive(Debug)]
struct Set<K> {
    keys: Table<K>,
    /// Those that are too long for a key, and their bytes.
    #[expect(clippy::box_collection, reason = "most sets have none, and there may be millions of sets")]
    texts: Option<Box<(HashSet<Box<[u8]>>, usize)>>,
}

impl<K> Default for Set<K> {
    fn default() -> Self {
        Self { keys: Table::default(), texts: None }
    }
}

impl<K: Key> Set<K> {
    fn insert(&mut self, values: &Values<K>, row: usize) {
        match values.long(row) {
            None => self.keys.insert(values.keys[row]),
            Some(text) => self.insert_text(text),
        }
    }

    fn insert_text(&mut self, text: &[u8]) {
        let (texts, bytes) = self.texts.get_or_insert_default().as_mut();
        if !texts.contains(text) {
            texts.insert(text.into());
            *bytes += text.len() + 2 * size_of::<Box<[u8]>>();
        }
    }

    fn len(&self) -> usize {
        self.keys.len() + self.texts.as_ref().map_or(0, |texts| texts.0.len())
    }

    /// About how many it takes.
    fn size(&self) -> usize {
        self.keys.bytes() + self.texts.as_ref().map_or(0, |texts| texts.1)
    }

    fn bytes(&self) -> Vec<u8> {
        let texts = self.texts.iter().flat_map(|texts| texts.0.iter());
        let room: usize = texts.clone().map(|text| text.len() + LENGTH_BYTES).sum();
        let mut bytes = Vec::with_capacity(1 + LENGTH_BYTES + self.keys.len() * K::BYTES + room);
        if self.texts.is_none() {
            bytes.push(KEYS);
        } else {
            bytes.push(KEYS_AND_TEXTS);
            bytes.extend_from_slice(&(self.keys.len() as u64).to_le_bytes());
        }
        self.keys.iter().for_each(|key| key.write(&mut bytes));
        for text in texts {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text);
        }
        bytes
    }
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
        Self::Set(Set::default())
    }
}

impl<K: Key> Group<K> {
    fn count(&self) -> DfResult<i64> {
        let count = match self {
            Group::Set(set) => set.len(),
            Group::Sent(bytes) => {
                let sent = decoded::<K>(bytes)?;
                sent.keys.len() / K::BYTES + sent.texts().count()
            }
        };
        Ok(count as i64)
    }

    fn size(&self) -> usize {
        match self {
            Group::Set(set) => set.size(),
            Group::Sent(bytes) => bytes.len(),
        }
    }

    fn into_bytes(self) -> Box<[u8]> {
        match self {
            Group::Set(set) => set.bytes().into(),
            Group::Sent(bytes) => bytes,
        }
    }

    fn touch(&self, key: K) -> K {
        match self {
            Group::Set(set) => set.keys.touch(key),
            Group::Sent(_) => key,
        }
    }

    /// The set itself, if need be from its bytes.
    fn set(&mut self) -> DfResult<&mut Set<K>> {
        if let Group::Sent(bytes) = self {
            let mut set = Set::default();
            merge(&mut set, bytes)?;
            *self = Group::Set(set);
        }
        match self {
            Group::Set(set) => Ok(set),
            Group::Sent(_) => Err(internal_datafusion_err!("a set was not taken apart")),
        }
    }
}

fn decoded<K: Key>(bytes: &[u8]) -> DfResult<Encoded<'_>> {
    Encoded::of(bytes, K::BYTES).ok_or_else(|| internal_datafusion_err!("the bytes of a set are cut off"))
}

fn merge<K: Key>(set: &mut Set<K>, bytes: &[u8]) -> DfResult<()> {
    let sent = decoded::<K>(bytes)?;
    set.keys.reserve(sent.keys.len() / K::BYTES);
    sent.keys.chunks_exact(K::BYTES).for_each(|key| set.keys.insert(K::read(key)));
    sent.texts().for_each(|text| set.insert_text(text));
    Ok(())
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
        let emitted = emit_to.take_needed(&mut self.groups);
        self.bytes = self.groups.iter().map(Group::size).sum();
        emitted
    }
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
        let rows: Vec<usize> = match &counted {
            Some(counted) => counted.set_indices().collect(),
            None => (0..column.len()).collect(),
        };
        for rows in rows.chunks(ROWS_AT_ONCE) {
            for row in rows {
                black_box(self.groups[group_indices[*row]].touch(values.keys[*row]));
            }
            for row in rows {
                let set = self.groups[group_indices[*row]].set()?;
                let before = set.size();
                set.insert(&values, *row);
                self.bytes += set.size() - before;
            }
        }
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
            let before = group.size();
            match group {
                Group::Set(set) if set.len() == 0 => *group = Group::Sent(bytes.into()),
                _ => merge(group.set()?, bytes)?,
            }
            self.bytes = (self.bytes + group.size()).saturating_sub(before);
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
