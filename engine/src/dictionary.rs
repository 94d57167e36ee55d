//! Texts as numbers, for all queries of this process: two rows have the same text if they have the same id.
//!
//! A set of ids is a bitmap, which a row finds its place in without hashing. Ids stay as they are while a dictionary
//! lives; they mean nothing to another process.

use arrow::array::{Array, PrimitiveArray, StringViewArray, UInt32Array};
use arrow::buffer::NullBuffer;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

/// Bytes of a text that fit into its view, as Arrow's format has it.
const LONGEST_VIEW: usize = 12;
/// What hash tables keep beside an entry, and the room that they leave.
const TABLE_BYTES: usize = 10;

/// At least one row in so many should have a text that was there before.
const ROWS_FOR_A_KNOWN_TEXT: usize = 4;
const ROWS_THAT_TELL: usize = 1 << 20;

static ALL: LazyLock<Mutex<HashMap<u64, Weak<Dictionary>>>> = LazyLock::new(Mutex::default);

#[derive(Debug)]
pub(crate) struct Dictionary {
    number: u64,
    texts: RwLock<Texts>,
    /// Rows whose texts were numbered.
    rows: AtomicUsize,
}

impl Dictionary {
    pub(crate) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dictionary = Arc::new(Self { number, texts: RwLock::default(), rows: AtomicUsize::new(0) });
        ALL.lock().insert(number, Arc::downgrade(&dictionary));
        dictionary
    }

    /// The dictionary of that number, as long as somebody holds it.
    pub(crate) fn numbered(number: u64) -> Option<Arc<Self>> {
        ALL.lock().get(&number)?.upgrade()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether texts come again so often that it is worth to number them. A few rows do not tell: of the first
    /// hundred thousand events of a million users most are a user's first.
    pub(crate) fn is_worth_it(&self) -> bool {
        let rows = self.rows.load(Ordering::Relaxed);
        rows < ROWS_THAT_TELL || self.texts().views.len() <= rows - rows / ROWS_FOR_A_KNOWN_TEXT
    }

    /// The id of each text; `None` where it would take more bytes than these.
    pub(crate) fn intern(&self, texts: &StringViewArray, most_bytes: usize) -> Option<UInt32Array> {
        let mut known = self.texts.write();
        if known.size() + texts.total_bytes_len() + texts.len() * (size_of::<View>() + TABLE_BYTES)
            > most_bytes
        {
            return None;
        }
        self.rows.fetch_add(texts.len(), Ordering::Relaxed);
        let nulls = texts.nulls().filter(|nulls| nulls.null_count() > 0);
        let is_null = |row: usize| nulls.is_some_and(|nulls: &NullBuffer| nulls.is_null(row));
        let ids = (0..texts.len()).map(|row| match is_null(row) {
            true => Some(0),
            false => known.intern(texts.value(row).as_bytes()),
        });
        let ids: Vec<u32> = ids.collect::<Option<_>>()?;
        Some(PrimitiveArray::new(ids.into(), nulls.cloned()))
    }

    pub(crate) fn texts(&self) -> RwLockReadGuard<'_, Texts> {
        self.texts.read()
    }
}

impl Drop for Dictionary {
    fn drop(&mut self) {
        ALL.lock().remove(&self.number);
    }
}

/// Length, first four bytes and the rest, as Arrow has it; of longer texts the place among `bytes` instead of the rest.
type View = u128;

#[derive(Debug, Default)]
pub(crate) struct Texts {
    ids: HashTable<u32>,
    views: Vec<View>,
    /// Of texts that are longer than a view.
    bytes: Vec<u8>,
    hasher: DefaultHashBuilder,
}

impl Texts {
    pub(crate) fn size(&self) -> usize {
        self.views.capacity() * size_of::<View>() + self.ids.capacity() * TABLE_BYTES + self.bytes.capacity()
    }

    pub(crate) fn id(&self, text: &[u8]) -> Option<u32> {
        let is_same = |id: &u32| self.is(*id, text);
        self.ids.find(self.hasher.hash_one(text), is_same).copied()
    }

    /// The text of an id that was given out.
    pub(crate) fn text(&self, id: u32) -> Text<'_> {
        let view = self.views[id as usize];
        match length(view) {
            0..=LONGEST_VIEW => Text::View(view),
            length => Text::Long(&self.bytes[place(view)..][..length]),
        }
    }

    fn is(&self, id: u32, text: &[u8]) -> bool {
        match self.text(id) {
            Text::View(view) => text.len() <= LONGEST_VIEW && view == view_of(text),
            Text::Long(known) => known == text,
        }
    }

    fn intern(&mut self, text: &[u8]) -> Option<u32> {
        if let Some(id) = self.id(text) {
            return Some(id);
        }
        let id = u32::try_from(self.views.len()).ok()?;
        let view = match text.len() {
            0..=LONGEST_VIEW => view_of(text),
            length => {
                let place = self.bytes.len() as u128;
                self.bytes.extend_from_slice(text);
                place << 64 | u128::from(u32::try_from(length).ok()?)
            }
        };
        self.views.push(view);
        let Self { ids, views, bytes, hasher } = self;
        let hash_of = |id: &u32| {
            let view = views[*id as usize];
            let inline = view.to_le_bytes();
            hasher.hash_one(match length(view) {
                length @ 0..=LONGEST_VIEW => &inline[4..][..length],
                length => &bytes[place(view)..][..length],
            })
        };
        ids.insert_unique(hasher.hash_one(text), id, hash_of);
        Some(id)
    }
}

pub(crate) enum Text<'a> {
    /// As Arrow has it.
    View(u128),
    Long(&'a [u8]),
}

fn length(view: View) -> usize {
    view as u32 as usize
}

fn place(view: View) -> usize {
    (view >> 64) as usize
}

/// Of up to [`LONGEST_VIEW`] bytes.
fn view_of(text: &[u8]) -> View {
    let mut view = [0; size_of::<View>()];
    view[..4].copy_from_slice(&(text.len() as u32).to_le_bytes());
    view[4..][..text.len()].copy_from_slice(text);
    View::from_le_bytes(view)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(dictionary: &Dictionary, texts: &[Option<&str>]) -> Vec<Option<u32>> {
        let texts = StringViewArray::from(texts.to_vec());
        dictionary.intern(&texts, usize::MAX).unwrap().iter().collect()
    }

    #[test]
    fn a_text_keeps_its_id_and_comes_back() {
        let dictionary = Dictionary::new();
        let long = ["longer than twelve bytes: 1", "longer than twelve bytes: 2"];
        let first = [Some("a"), None, Some(long[0]), Some(""), Some("a"), Some(long[1])];
        assert_eq!(ids(&dictionary, &first), [Some(0), None, Some(1), Some(2), Some(0), Some(3)]);
        assert_eq!(ids(&dictionary, &[Some(long[1]), Some("b"), Some("")]), [Some(3), Some(4), Some(2)]);
        let texts = dictionary.texts();
        assert!(matches!(texts.text(3), Text::Long(text) if text == long[1].as_bytes()));
        assert!(matches!(texts.text(4), Text::View(view) if view == view_of(b"b")));
        assert_eq!((texts.id(b"a"), texts.id(b"nobody")), (Some(0), None));
    }

    #[test]
    fn it_grows_to_its_limit_and_no_further() {
        let dictionary = Dictionary::new();
        let many: StringViewArray =
            (0..50_000).map(|n| Some(format!("text {n} of many that are long"))).collect();
        let interned = dictionary.intern(&many, usize::MAX).unwrap();
        assert_eq!(interned.len(), 50_000);
        let again = dictionary.intern(&many.slice(7, 9), usize::MAX).unwrap();
        assert_eq!(again.values(), &interned.values()[7..16]);
        let size = dictionary.texts().size();
        assert!(dictionary.intern(&many, size).is_none());
    }

    #[test]
    fn texts_that_hardly_come_again_are_not_worth_it() {
        let (once, often) = (Dictionary::new(), Dictionary::new());
        for start in (0..ROWS_THAT_TELL).step_by(1 << 17) {
            let numbers = start..start + (1 << 17);
            assert!(once.is_worth_it(), "{start} rows do not tell");
            let texts: StringViewArray = numbers.clone().map(|n| Some(n.to_string())).collect();
            once.intern(&texts, usize::MAX).unwrap();
            let texts: StringViewArray = numbers.map(|n| Some((n / 2).to_string())).collect();
            often.intern(&texts, usize::MAX).unwrap();
        }
        assert!(!once.is_worth_it() && often.is_worth_it());
    }

    #[test]
    fn it_is_found_by_its_number_while_it_lives() {
        let dictionary = Dictionary::new();
        let number = dictionary.number();
        assert_eq!(Dictionary::numbered(number).unwrap().number(), number);
        drop(dictionary);
        assert!(Dictionary::numbered(number).is_none());
    }
}
