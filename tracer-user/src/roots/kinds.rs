//! Failures by cause and upstream, within bounded memory however many there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{cause::Cause, upstream::Upstream, verdict::Verdict};

/// Pairs of cause and upstream, deaths, listeners: what comes on top is counted together.
pub const MOST_KINDS: usize = 256;

/// Room for the texts of the failures that are shown each, and as much for what workers waited for, in bytes. Verdicts are a few
/// kilobytes each; what a path may be long makes some a hundred times that.
pub const MOST_TEXT: usize = 8 << 20;

/// Failures by cause and upstream.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    all: BTreeMap<(Cause, Upstream), Kind>,
    /// Bytes of what workers waited for.
    wait_bytes: usize,
}

/// Failures of one cause with one upstream.
#[derive(Clone, Debug, Default)]
pub struct Kind {
    /// How many.
    pub count: u64,
    /// The first and the last one, in ns since 1970.
    pub range: Option<(i64, i64)>,
    /// The workers that had them.
    pub workers: BTreeSet<u32>,
    /// What slow workers waited on, and how many did.
    pub waits: BTreeMap<String, u64>,
    /// Who killed workers, and how many.
    pub killers: BTreeMap<String, u64>,
}

impl Kinds {
    /// Takes in a failure.
    pub fn add(&mut self, verdict: &Verdict) {
        let mut key = (verdict.cause, verdict.upstream.clone());
        if !self.all.contains_key(&key) && self.all.len() >= MOST_KINDS {
            key.1 = Upstream::Unix("(others)".into());
        }
        self.all.entry(key).or_default().add(verdict, &mut self.wait_bytes);
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = (&(Cause, Upstream), &Kind)> {
        self.all.iter()
    }
}

impl Kind {
    fn add(&mut self, verdict: &Verdict, wait_bytes: &mut usize) {
        self.count += 1;
        self.range = Some(self.range.map_or((verdict.unix_ns, verdict.unix_ns), |(first, last)| {
            (first.min(verdict.unix_ns), last.max(verdict.unix_ns))
        }));
        let room = |kept: usize| kept < MOST_KINDS;
        if let Some(worker) = &verdict.worker {
            if room(self.workers.len()) {
                self.workers.insert(worker.process.pid);
            }
            let most = worker.doing.as_ref().and_then(|doing| doing.waits.first());
            if let Some((on, _)) = most {
                if let Some(times) = self.waits.get_mut(on) {
                    *times += 1;
                } else if room(self.waits.len()) && *wait_bytes + on.len() <= MOST_TEXT {
                    *wait_bytes += on.len();
                    self.waits.insert(on.clone(), 1);
                }
            }
        }
        if let Some(killer) = &verdict.killer
            && room(self.killers.len())
        {
            *self.killers.entry(format!("{} {}", killer.comm, killer.pid)).or_default() += 1;
        }
    }
}
