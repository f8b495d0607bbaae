//! What is known of processes' control groups, by the pids that verdicts name.

use std::sync::Arc;

use lru::LruCache;

use super::{Cgroup, Member};
use crate::model::budget;

/// How long what was found of a process holds, in ns: later, its pid may be another's, of whom nothing is known.
const HOLDS_NS: u64 = 60_000_000_000;

/// The control groups of processes. Pure: it holds what the stream said.
#[derive(Debug)]
pub struct Known(
    /// With the moment at which it was found.
    LruCache<u32, (u64, Member)>,
);

impl Default for Known {
    fn default() -> Self {
        Self(LruCache::new(budget::CGROUPED))
    }
}

impl Known {
    /// Takes in what was found of a process by `found_ns` (monotonic).
    pub fn learn(&mut self, found_ns: u64, member: Member) {
        self.0.put(member.pid, (found_ns, member));
    }

    /// The control group of a process that acted at a moment (ns, monotonic).
    pub fn of(&self, pid: u32, at_ns: u64) -> Option<&Member> {
        let (found_ns, member) = self.0.peek(&pid)?;
        (member.began_ns <= at_ns && at_ns <= found_ns.saturating_add(HOLDS_NS)).then_some(member)
    }

    /// Those of some processes, each once.
    pub fn places(&self, pids: impl IntoIterator<Item = u32>, at_ns: u64) -> Places {
        let mut places = Places::default();
        for pid in pids {
            if places.of(pid).is_none()
                && let Some(member) = self.of(pid, at_ns)
            {
                places.0.push(Place { pid, is_kept: member.is_kept, cgroup: Arc::clone(&member.cgroup) });
            }
        }
        places
    }
}

/// A process of a verdict, and its control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The process.
    pub pid: u32,
    /// Whether the kernel side had kept it, for the process had ended.
    pub is_kept: bool,
    /// Its control group.
    pub cgroup: Arc<Cgroup>,
}

/// The control groups of the processes that a verdict names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub Vec<Place>);

impl Places {
    /// That of a process; none where it is not known.
    pub fn of(&self, pid: u32) -> Option<&Cgroup> {
        self.0.iter().find(|place| place.pid == pid).map(|place| place.cgroup.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: u32, began_ns: u64, path: &str) -> Member {
        Member { pid, began_ns, is_kept: false, cgroup: Arc::new(Cgroup::of(path)) }
    }

    #[test]
    fn who_began_later_is_somebody_else() {
        let mut known = Known::default();
        known.learn(150, member(7, 100, "/a.service"));
        assert_eq!(known.of(7, 99), None);
        assert_eq!(known.of(7, 151 + HOLDS_NS), None);
        assert_eq!(known.places([7, 7, 8], 100).0.len(), 1);
        known.learn(210, member(7, 200, "/b.service"));
        assert_eq!(known.places([7], 250).of(7).unwrap().unit.as_deref(), Some("b.service"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut known = Known::default();
        for pid in 0..2 * u32::try_from(budget::CGROUPED.get()).unwrap() {
            known.learn(1, member(pid, 1, "/a.service"));
        }
        assert_eq!(known.0.len(), budget::CGROUPED.get());
        assert_eq!(known.of(0, 5), None);
    }
}
