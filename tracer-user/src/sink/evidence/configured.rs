//! What was learnt once and later lines rest on, for files that begin after it was: what nginx's configurations say, and who processes are.

use std::collections::VecDeque;

use crate::{
    evidence::{Encoder, Line},
    model::{
        budget,
        stream::{Entry, What},
    },
};

/// The lines of what a pipeline remembers, each with when it came (ns, monotonic).
#[derive(Debug, Default)]
pub(super) struct Configurations {
    groups: VecDeque<(u64, Line)>,
    members: VecDeque<(u64, Line)>,
}

impl Configurations {
    /// Takes in an entry, if it is one.
    pub(super) fn add(&mut self, entry: &Entry, encoder: &Encoder) {
        let (lines, most) = match &entry.what {
            What::Groups(_) => (&mut self.groups, budget::GROUPED_CONFIGURATIONS),
            What::Member(_) => (&mut self.members, budget::CGROUPED.get()),
            _ => return,
        };
        if lines.len() >= most {
            lines.pop_front();
        }
        lines.push_back((entry.at_ns, encoder.line(entry)));
    }

    /// Those that came before a file's own lines, of which the first came at `begins_ns`. The others are among them: written first, they
    /// would put the reader's clock forward, past what waits for its other half.
    pub(super) fn lines(&self, begins_ns: u64) -> impl Iterator<Item = &Line> {
        let all = self.groups.iter().chain(&self.members);
        all.filter(move |(at_ns, _)| *at_ns < begins_ns).map(|(_, line)| line)
    }
}
