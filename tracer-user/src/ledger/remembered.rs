//! A map of bounded size, for what may be asked for or not.

use std::collections::{HashMap, VecDeque};

use crate::model::budget;

/// A map that forgets its oldest entries when it is full.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: VecDeque<(u64, K)>,
    next: u64,
    pub(super) forgotten: u64,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), next: 0, forgotten: 0 }
    }
}

impl<K: Copy + Eq + std::hash::Hash, V> Remembered<K, V> {
    pub(super) fn put(&mut self, key: K, value: V) {
        self.next += 1;
        self.entries.insert(key, (self.next, value));
        self.order.push_back((self.next, key));
        while self.order.len() > budget::REMEMBERED_EXCHANGES {
            if let Some((number, key)) = self.order.pop_front()
                && self.entries.get(&key).is_some_and(|(current, _)| *current == number)
            {
                self.entries.remove(&key);
                self.forgotten += 1;
            }
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn take(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_what_was_emitted_is_bounded() {
        let mut remembered = Remembered::default();
        for key in 0..2 * budget::REMEMBERED_EXCHANGES {
            remembered.put(key, key);
        }
        assert_eq!(remembered.entries.len(), budget::REMEMBERED_EXCHANGES);
        assert_eq!(remembered.take(&0), None);
        assert_eq!(
            remembered.take(&(2 * budget::REMEMBERED_EXCHANGES - 1)),
            Some(2 * budget::REMEMBERED_EXCHANGES - 1)
        );
    }
}
