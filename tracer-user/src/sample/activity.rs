//! What a worker was found doing over the time of one exchange.

use std::sync::Arc;

use super::{Doing, Target};

/// Different things that are told apart; what comes on top is only counted.
const MOST_TARGETS: usize = 16;

/// Room for what is told apart, in bytes: the longest path that there may be, and more. Names are about 30 bytes each.
const MOST_BYTES: usize = 8_192;

/// What one look found, as it is kept: what was waited for is shared by all the exchanges that waited for it.
#[derive(Clone, Debug)]
pub enum Found {
    /// It ran.
    Running,
    /// It waited for this.
    Waiting(Arc<Target>),
    /// It waited for something that is not kept, for want of room.
    WaitingUnkept,
}

impl From<Doing> for Found {
    fn from(doing: Doing) -> Self {
        match doing {
            Doing::Running => Self::Running,
            Doing::Waiting(target) => Self::Waiting(Arc::new(target)),
        }
    }
}

/// All looks at the worker of one exchange. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    last_ns: u64,
    samples: u32,
    running: u32,
    waits: Vec<(Arc<Target>, u32)>,
    has_other_threads: bool,
}

impl Activity {
    /// Begins with a first look, at `ns` (monotonic). `has_other_threads` says that the thread looked at is not all of
    /// its process.
    pub fn new(ns: u64, found: &Found, has_other_threads: bool) -> Self {
        let mut activity = Self { last_ns: ns, samples: 0, running: 0, waits: Vec::new(), has_other_threads };
        activity.add(ns, found, has_other_threads);
        activity
    }

    /// Takes in a further look.
    pub fn add(&mut self, ns: u64, found: &Found, has_other_threads: bool) {
        self.last_ns = ns;
        self.samples = self.samples.saturating_add(1);
        self.has_other_threads |= has_other_threads;
        let target = match found {
            Found::Running => {
                self.running = self.running.saturating_add(1);
                return;
            }
            Found::Waiting(target) => target,
            Found::WaitingUnkept => return,
        };
        if let Some((_, samples)) = self.waits.iter_mut().find(|(known, _)| known == target) {
            *samples = samples.saturating_add(1);
        } else if self.waits.len() < MOST_TARGETS {
            let bytes: usize = self.waits.iter().map(|(known, _)| known.bytes()).sum();
            if bytes + target.bytes() <= MOST_BYTES {
                self.waits.push((Arc::clone(target), 1));
            }
        }
    }

    /// When the last look was (ns, monotonic).
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// How many looks there were.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// How many of them found it running.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// What it waited for, and in how many looks: the most frequent first.
    pub fn waits(&self) -> Vec<(&Target, u32)> {
        let mut waits: Vec<_> =
            self.waits.iter().map(|(target, samples)| (target.as_ref(), *samples)).collect();
        waits.sort_by_key(|(_, samples)| std::cmp::Reverse(*samples));
        waits
    }

    /// Whether the process has more threads than the one that was looked at.
    pub fn has_other_threads(&self) -> bool {
        self.has_other_threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(target: Target) -> Found {
        Found::Waiting(Arc::new(target))
    }

    #[test]
    fn looks_are_counted_by_what_they_found_the_most_frequent_first() {
        let mut activity = Activity::new(1, &Found::Running, false);
        activity.add(2, &waiting(Target::Lock), false);
        for ns in 3..6 {
            activity.add(ns, &waiting(Target::Cpu), true);
        }
        assert_eq!((activity.samples(), activity.running(), activity.last_ns()), (5, 1, 5));
        assert_eq!(activity.waits(), [(&Target::Cpu, 3), (&Target::Lock, 1)]);
        assert!(activity.has_other_threads());
    }

    #[test]
    fn ever_new_things_to_wait_for_take_no_more_room() {
        let mut activity = Activity::new(0, &Found::Running, false);
        for number in 0..1_000 {
            let target = Target::File(format!("/{number}").into());
            activity.add(number, &waiting(target), false);
        }
        assert_eq!((activity.samples(), activity.waits().len()), (1_001, MOST_TARGETS));
    }
}
