//! A JSON object into the columns of a struct (or of the record itself).
//!
//! Events of one kind nearly always have the same keys in the same order. So the keys seen last are
//! remembered by their place, with the column each one goes to: a key then costs one comparison.

use super::column::Column;
use super::cursor::{Cursor, deeper, unescape};
use super::fault::{Fault, Faulty};
use arrow::array::{ArrayRef, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Fields;
use arrow::error::ArrowError;
use tidemill_core::Result;

/// More keys than this in one object are looked up each time.
const REMEMBERED_KEYS: usize = 256;

/// How well a key's name fits a column; the better one wins, and of equals the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    None,
    IgnoringCase,
    Exact,
}

#[derive(Debug)]
pub(super) struct Object {
    fields: Fields,
    columns: Vec<Column>,
    /// By which match each column was filled in the object that is being read.
    filled: Vec<Match>,
    remembered: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    /// As it stands in the text, with its escapes.
    raw: Box<[u8]>,
    target: Option<(usize, Match)>,
}

impl Object {
    pub(super) fn new(fields: &Fields) -> Result<Self> {
        let columns: Result<Vec<Column>> =
            fields.iter().map(|field| Column::new(field.name(), field.data_type())).collect();
        Ok(Self {
            fields: fields.clone(),
            columns: columns?,
            filled: vec![Match::None; fields.len()],
            remembered: Vec::new(),
        })
    }

    /// Adds one object as row `row`, to be taken back by [`Self::truncate`] after a fault.
    #[inline]
    pub(super) fn read(&mut self, cursor: &mut Cursor<'_>, row: usize, depth: usize) -> Faulty<()> {
        let depth = deeper(depth)?;
        cursor.expect(b'{', "`{`")?;
        self.filled.fill(Match::None);
        let mut place = 0;
        if !cursor.take(b'}') {
            loop {
                let target = self.key(cursor, place)?;
                place += 1;
                cursor.expect(b':', "`:`")?;
                match target {
                    Some((index, how)) => self.value(cursor, index, how, row, depth)?,
                    None => cursor.skip(depth)?,
                }
                if !cursor.take(b',') {
                    cursor.expect(b'}', "`,` or `}`")?;
                    break;
                }
            }
        }
        for (index, field) in self.fields.iter().enumerate() {
            if self.filled[index] == Match::None {
                self.columns[index].append_null();
            }
            if !field.is_nullable() && self.columns[index].last_is_null() {
                return Err(Fault::missing().inside(field.name()));
            }
        }
        Ok(())
    }

    #[inline]
    fn value(
        &mut self,
        cursor: &mut Cursor<'_>,
        index: usize,
        how: Match,
        row: usize,
        depth: usize,
    ) -> Faulty<()> {
        if self.filled[index] > how {
            return cursor.skip(depth);
        }
        if self.filled[index] != Match::None {
            self.columns[index].truncate(row);
        }
        self.filled[index] = how;
        match self.columns[index].read(cursor, depth) {
            Ok(()) => Ok(()),
            Err(fault) => Err(fault.inside(self.fields[index].name())),
        }
    }

    /// Passes over a key and says which column it goes to.
    #[inline]
    fn key(&mut self, cursor: &mut Cursor<'_>, place: usize) -> Faulty<Option<(usize, Match)>> {
        cursor.before_key();
        match self.remembered.get(place) {
            Some(key) if cursor.take_known(&key.raw) => Ok(key.target),
            _ => self.learn(cursor, place),
        }
    }

    fn learn(&mut self, cursor: &mut Cursor<'_>, place: usize) -> Faulty<Option<(usize, Match)>> {
        let text = cursor.string()?;
        let mut name = Vec::new();
        unescape(text.raw, &mut name)?;
        let target = self.find(&name);
        let key = Key { raw: text.raw.into(), target };
        match self.remembered.get_mut(place) {
            Some(old) => *old = key,
            None if place < REMEMBERED_KEYS => self.remembered.push(key),
            None => {}
        }
        Ok(target)
    }

    fn find(&self, name: &[u8]) -> Option<(usize, Match)> {
        let position = |fits: fn(&[u8], &[u8]) -> bool| {
            self.fields.iter().position(|field| fits(field.name().as_bytes(), name))
        };
        position(|column, key| column == key)
            .map(|index| (index, Match::Exact))
            .or_else(|| position(<[u8]>::eq_ignore_ascii_case).map(|index| (index, Match::IgnoringCase)))
    }

    pub(super) fn append_null(&mut self) {
        self.columns.iter_mut().for_each(Column::append_null);
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
    }

    pub(super) fn finish(
        &mut self,
        rows: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<StructArray, ArrowError> {
        let columns: Result<Vec<ArrayRef>, ArrowError> =
            self.columns.iter_mut().map(Column::finish).collect();
        StructArray::try_new_with_length(self.fields.clone(), columns?, nulls, rows)
    }
}
