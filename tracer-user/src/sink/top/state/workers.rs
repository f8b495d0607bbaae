//! Workers: whom they serve, what slow ones do, and which have died.

use std::collections::BTreeSet;

use super::{MOST, State};
use crate::{
    model::{
        doing::Look,
        upstream::Upstream,
        verdict::{Process, Verdict},
    },
    roots::MOST_KINDS,
    sample::Crew,
};

/// What was found of a worker is of now for so long (ns): looks come once a second.
const LOOK_HOLDS: u64 = 2_500_000_000;

/// A worker that died, or was told to stop.
#[derive(Clone, Debug)]
pub struct Death {
    /// When its exchange ended, in ns since 1970.
    pub unix_ns: i64,
    /// Where it served.
    pub upstream: Upstream,
    /// Who.
    pub worker: Process,
    /// Of which signal; none where it ended of itself.
    pub signal: Option<String>,
    /// Who sent it.
    pub killer: Option<Process>,
}

/// What slow workers were found doing last.
#[derive(Clone, Debug)]
pub struct Slow {
    at_ns: u64,
    /// In the past tense.
    pub doing: String,
}

/// Workers of one upstream, as far as failures name them.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Those that had exchanges that failed.
    pub workers: BTreeSet<u32>,
    /// Failures in which a worker had the exchange.
    pub failures: u64,
}

/// A master process, of nginx or of a pool, as it was found last.
#[derive(Clone, Debug)]
pub struct Master {
    /// Its pid.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// How many workers it has.
    pub workers: usize,
    /// Where it listens; none where that could not be seen.
    pub listeners: Option<Vec<String>>,
}

impl State {
    pub(super) fn look(&mut self, look: &Look) {
        let oldest = self.at_ns.saturating_sub(LOOK_HOLDS);
        self.slow.retain(|_, slow| slow.at_ns >= oldest);
        if self.slow.len() < MOST {
            let slow = Slow { at_ns: self.at_ns, doing: look.doing.in_words() };
            self.slow.insert(look.pid.cast_unsigned(), slow);
        }
    }

    /// What slow workers were found doing just now: the worker, the upstream that it is known to serve, and what it did.
    pub fn slow(&self) -> impl Iterator<Item = (u32, Option<&Upstream>, &str)> {
        let oldest = self.at_ns.saturating_sub(LOOK_HOLDS);
        let new = self.slow.iter().filter(move |(_, slow)| slow.at_ns >= oldest && !self.is_over);
        new.map(|(pid, slow)| (*pid, self.serves.get(pid), slow.doing.as_str()))
    }

    pub(super) fn of_worker(&mut self, verdict: &Verdict) {
        let Some(worker) = &verdict.worker else { return };
        let pid = worker.process.pid;
        if self.pools.contains_key(&verdict.upstream) || self.pools.len() < MOST_KINDS {
            let pool = self.pools.entry(verdict.upstream.clone()).or_default();
            pool.failures += 1;
            if pool.workers.len() < MOST {
                pool.workers.insert(pid);
            }
        }
        if self.serves.len() >= 8 * MOST {
            self.serves.pop_first();
        }
        self.serves.insert(pid, verdict.upstream.clone());
        let has_died = worker.signal.is_some() || verdict.cause.detail().starts_with("worker_");
        if has_died && !self.deaths.iter().any(|death| death.worker.pid == pid) {
            if self.deaths.len() == MOST {
                self.deaths.pop_front();
            }
            self.deaths.push_back(Death {
                unix_ns: verdict.unix_ns,
                upstream: verdict.upstream.clone(),
                worker: worker.process.clone(),
                signal: worker.signal.clone(),
                killer: verdict.killer.clone(),
            });
        }
    }

    /// The upstream that a crew serves: as failures of its workers show, or as its master listens, if that is in one place.
    pub fn served_by(&self, crew: &Crew) -> Option<String> {
        let served = crew.workers.iter().find_map(|(pid, _)| self.serves.get(pid));
        served.map(ToString::to_string).or_else(|| {
            let master = self.masters.iter().find(|master| master.pid == crew.master)?;
            match master.listeners.as_deref() {
                Some([one]) => Some(one.clone()),
                _ => None,
            }
        })
    }
}
