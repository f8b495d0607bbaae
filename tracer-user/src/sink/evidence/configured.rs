//! What was learnt once and later lines rest on, for files that begin after it was: what nginx's configurations say, and who processes are.

use std::collections::VecDeque;

use crate::{
    evidence::{Encoder, Line},
    model::{
        budget,
        stream::{Entry, What},
    },
};

/// The lines of what a pipeline remembers.
#[derive(Debug, Default)]
pub(super) struct Configurations {
    groups: VecDeque<Line>,
    members: VecDeque<Line>,
}

impl Configurations {
    /// Takes in an entry, if it is one.
    pub(super) fn add(&mut self, entry: &Entry, encoder: &Encoder) {
        let (lines, most) = match &entry.what {
            What::Groups(_) => (&mut self.groups, budget::GROUPED_CONFIGURATIONS),
            What::Member(_) => (&mut self.members, budget::CGROUPED),
            _ => return,
        };
        if lines.len() >= most {
            lines.pop_front();
        }
        lines.push_back(encoder.line(entry));
    }

    /// Those so far.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.groups.iter().chain(&self.members)
    }
}
