//! What nginx's configurations say, for files that begin after it was learnt.

use std::collections::VecDeque;

use crate::{
    budget,
    evidence::{Encoder, Line},
    stream::{Entry, What},
};

/// The lines of the configurations that a pipeline remembers.
#[derive(Debug, Default)]
pub(super) struct Configurations(VecDeque<Line>);

impl Configurations {
    /// Takes in an entry, if it is one.
    pub(super) fn add(&mut self, entry: &Entry, encoder: &Encoder) {
        if !matches!(entry.what, What::Groups(_)) {
            return;
        }
        if self.0.len() >= budget::GROUPED_CONFIGURATIONS {
            self.0.pop_front();
        }
        self.0.push_back(encoder.line(entry));
    }

    /// Those so far.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.0.iter()
    }
}
