//! A set of keys of fixed width.
//!
//! Where a set is larger than the processor's caches, each look at it waits for memory. A general hash set waits for
//! one key after the other, as it decides on what it finds before it goes on. Here one array holds the keys, and
//! [`Table::touch`] asks for the places of several keys before the first of them is needed: memory answers all of
//! them at once. Keys are placed by the upper bits of their hashes with linear probing, so that a table which grows
//! is read and written from one end to the other.

use super::keys::Key;

/// Of a table with a key.
const FEWEST_SLOTS: usize = 4;

#[derive(Debug)]
pub(super) struct Table<K> {
    /// `K::default()` where none is. At most half of them are taken, and their number is a power of two, or none.
    slots: Vec<K>,
    taken: usize,
    /// Whether `K::default()` is in the set.
    has_default: bool,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { slots: Vec::new(), taken: 0, has_default: false }
    }
}

impl<K: Key> Table<K> {
    pub(super) fn len(&self) -> usize {
        self.taken + usize::from(self.has_default)
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * K::BYTES
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = K> {
        let none = K::default();
        let default = self.has_default.then_some(none);
        self.slots.iter().copied().filter(move |slot| *slot != none).chain(default)
    }

    /// Brings what [`Self::insert`] will look at into the cache. The result is of no use but to be waited for.
    pub(super) fn touch(&self, key: K) -> K {
        self.slots.get(self.place(key)).copied().unwrap_or_default()
    }

    pub(super) fn insert(&mut self, key: K) {
        let none = K::default();
        if key == none {
            self.has_default = true;
            return;
        }
        if (self.taken + 1) * 2 > self.slots.len() {
            self.grow_to((self.slots.len() * 2).max(FEWEST_SLOTS));
        }
        let (mut place, last) = (self.place(key), self.slots.len() - 1);
        while self.slots[place] != key {
            if self.slots[place] == none {
                self.slots[place] = key;
                self.taken += 1;
                return;
            }
            place = (place + 1) & last;
        }
    }

    /// Makes room for so many more keys. Keys that come in the order of another table need all their room at once:
    /// they would crowd at the beginning of a table that grows meanwhile.
    pub(super) fn reserve(&mut self, more: usize) {
        let slots = ((self.taken + more) * 2).next_power_of_two();
        if more > 0 && slots > self.slots.len() {
            self.grow_to(slots);
        }
    }

    fn grow_to(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, vec![K::default(); slots]);
        let (none, last) = (K::default(), slots - 1);
        for key in before {
            if key != none {
                let mut place = self.place(key);
                while self.slots[place] != none {
                    place = (place + 1) & last;
                }
                self.slots[place] = key;
            }
        }
    }

    /// Where a key belongs; 0 in a table without slots.
    fn place(&self, key: K) -> usize {
        let bits = self.slots.len().checked_ilog2().unwrap_or_default();
        (u128::from(key.hash()) >> (u64::BITS - bits)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn it_holds_what_a_hash_set_holds() {
        let mut table = Table::<i64>::default();
        let mut expected = HashSet::new();
        for n in 0..20_000i64 {
            // Neighbours, multiples of a power of two, negative ones, and each of them twice.
            for key in [n, n << 40, -n / 2] {
                table.touch(key);
                table.insert(key);
                expected.insert(key);
            }
        }
        assert_eq!(table.len(), expected.len());
        assert_eq!(table.iter().collect::<HashSet<_>>(), expected);
        assert!(table.bytes() <= expected.len() * 8 * 4);
    }

    #[test]
    fn keys_in_the_order_of_another_table_find_room() {
        let mut from = Table::<i128>::default();
        (1..50_000).for_each(|n| from.insert(n << 32));
        let mut to = Table::<i128>::default();
        to.reserve(from.len());
        let room = to.bytes();
        from.iter().for_each(|key| to.insert(key));
        assert_eq!((to.len(), to.bytes()), (from.len(), room));
    }
}
