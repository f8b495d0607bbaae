//! The kernel side's counters, exchanges by upstream, and calls of nginx's log by process.

use std::sync::atomic::Ordering;

use wire::{FAMILY_UNIX, Stats};

use super::Tracer;
use crate::model::{
    failure::Failure,
    from_wire::{address, path_of},
    upstream::Upstream,
};

/// How many entries of a map of upstreams are walked: when one goes while the walk stands on it, the kernel begins anew, and
/// the walk must end nonetheless.
const MOST_UPSTREAMS: usize = 2_048;

/// The same of a map by process.
const MOST_FOREIGN: usize = 2_048;

impl Tracer {
    /// How many exchanges with each upstream have ended. What comes or goes while the maps are walked may be missed until they are
    /// walked again.
    pub fn upstreams(&self) -> Vec<(Upstream, u64)> {
        let inet = self.upstreams.iter().flatten().filter(|(upstream, _)| upstream.family != FAMILY_UNIX);
        let inet = inet.map(|(upstream, count)| (Upstream::Inet(address(&upstream)), count));
        let unix = self.unix_upstreams.iter().flatten();
        let unix = unix.map(|(path, count)| (Upstream::Unix(path_of(&path)), count));
        inet.take(MOST_UPSTREAMS).chain(unix.take(MOST_UPSTREAMS)).collect()
    }

    /// How many calls of nginx's log that are about no upstream each process has made.
    pub fn foreign_words(&self) -> Vec<(u32, u64)> {
        // What goes while the map is walked counts the next time.
        self.foreign.iter().flatten().take(MOST_FOREIGN).collect()
    }

    /// The kernel side's counters.
    ///
    /// # Errors
    /// If the kernel refuses to read the map.
    pub fn stats(&self) -> Result<Stats, Failure> {
        let by_cpu = self.stats.get(&0, 0).map_err(anyhow::Error::from)?;
        let mut stats = by_cpu.iter().fold(Stats::default(), |all, one| all.and(*one));
        stats.untracked += self.given_up.load(Ordering::Relaxed);
        Ok(stats)
    }
}
