//! Labels: what others name, in bounded number and printable.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use crate::terminal::printable;

/// What is beyond the bound is called so.
pub(super) const OTHER: &str = "other";

/// Values of a label: the first ones that are seen have their own, for as long as the program runs, so that no counter ever jumps.
#[derive(Debug)]
pub(super) struct Names<T> {
    known: HashMap<T, Arc<str>>,
    most: usize,
    other: Arc<str>,
}

impl<T: Eq + Hash + Clone> Names<T> {
    /// Up to `most` of them.
    pub(super) fn new(most: usize) -> Self {
        Self { known: HashMap::new(), most, other: OTHER.into() }
    }

    /// What one is called, and whether that is its own name.
    pub(super) fn of(&mut self, one: &T, shown: impl FnOnce(&T) -> String) -> (Arc<str>, bool) {
        if let Some(name) = self.known.get(one) {
            return (Arc::clone(name), true);
        }
        if self.known.len() >= self.most {
            return (Arc::clone(&self.other), false);
        }
        let name: Arc<str> = printable(&shown(one)).as_ref().into();
        self.known.insert(one.clone(), Arc::clone(&name));
        (name, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ones_keep_their_names_and_the_rest_is_other() {
        let mut names = Names::new(2);
        let mut of = |number: u32| names.of(&number, |number| format!("\n{number}")).0.to_string();
        assert_eq!([of(1), of(2), of(3), of(1), of(3)], ["\\n1", "\\n2", OTHER, "\\n1", OTHER]);
    }
}
