//! What is counted, within bounds: whoever may choose upstreams, processes and listeners may choose many.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
};

use lru::LruCache;

use super::{
    family::Histogram,
    names::{Names, OTHER},
    waits::{ByAddress, News, Waits},
};
use crate::model::{
    budget,
    cause::Cause,
    facts::{Fact, Sources},
    stream::{Depth, Entry, Loss, UpstreamCounts, What},
    upstream::Upstream,
    verdict::{Confidence, Delayed, Verdict},
};

/// Upper bounds of the times that failures take (s); beyond the last one is one more.
const BOUNDS: [f64; 12] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Kinds of failures that are counted apart; of further ones the upstream is `other`.
const SERIES: usize = 10_000;

/// Names of processes that are told apart.
const KILLERS: usize = 32;

/// Deaths of workers that are remembered: one that served many exchanges has a verdict for each.
const DEATHS: usize = 256;

/// For how long (ns): by then its pid may be another's.
const DEATH_NS: i64 = 60_000_000_000;

/// A listener that was not looked at for so long (ns) has gone.
const GONE_NS: u64 = 60_000_000_000;

/// Looks within this time (ns) are of the same round: listeners of the same address in several namespaces.
const ROUND_NS: u64 = 500_000_000;

/// The time between two looks at accept queues (ns), at most: beyond it nobody knows.
const LOOK_NS: u64 = 2_000_000_000;

/// By upstream, cause and confidence.
pub(super) type Failures = BTreeMap<(Arc<str>, Cause, Confidence), u64>;

/// Upstreams whose last count is kept: twice as many as there are in the stream, so that whoever goes here has gone there.
const LAST: NonZeroUsize = budget::UPSTREAMS.saturating_mul(NonZeroUsize::MIN.saturating_add(1));

/// How long failures of one cause took.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// By bound, and beyond the last.
    counts: [u64; BOUNDS.len() + 1],
    /// All of them together, in microseconds.
    sum_us: u64,
}

impl Times {
    /// As a histogram.
    pub(super) fn shown(&self) -> Histogram<'_> {
        Histogram { bounds: &BOUNDS, counts: &self.counts, seconds: self.sum_us as f64 / 1e6 }
    }
}

/// How full an accept queue is.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) depth: u32,
    pub(super) limit: u32,
    seen_ns: u64,
}

/// Counts, and keeps in mind what that takes.
#[derive(Debug)]
pub(super) struct Counter {
    names: Names<Upstream>,
    listeners: Names<Upstream>,
    killers: Names<String>,
    /// What each upstream's count was last, of those with a name and of those without.
    last: LruCache<Upstream, u64>,
    deaths: VecDeque<(u32, i64)>,
    /// What was seen of listeners at which there has been no upstream so far.
    elsewhere: ByAddress,
    /// What it comes to.
    pub(super) counted: Counted,
}

/// All that is counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) sources: Sources,
    pub(super) exchanges: BTreeMap<Arc<str>, u64>,
    pub(super) failures: Failures,
    pub(super) times: BTreeMap<&'static str, Times>,
    pub(super) delayed: BTreeMap<Arc<str>, u64>,
    pub(super) client_aborts: u64,
    pub(super) killed: BTreeMap<(Arc<str>, String, Arc<str>), u64>,
    pub(super) queues: BTreeMap<Arc<str>, Queue>,
    /// Nanoseconds, by listener.
    pub(super) full_ns: BTreeMap<Arc<str>, u64>,
    pub(super) overflows: BTreeMap<(Arc<str>, &'static str), u64>,
    /// None where nobody looks at all connections.
    pub(super) waits: Option<Waits>,
    pub(super) lost: BTreeMap<&'static str, u64>,
    pub(super) untracked: u64,
    pub(super) unexplained: u64,
}

impl Counter {
    pub(super) fn new(sources: &Sources, upstreams: usize) -> Self {
        Self {
            names: Names::new(upstreams),
            listeners: Names::new(upstreams),
            killers: Names::new(KILLERS),
            last: LruCache::new(LAST),
            deaths: VecDeque::new(),
            elsewhere: ByAddress::default(),
            counted: Counted { sources: sources.clone(), ..Counted::default() },
        }
    }

    /// Takes in an entry of the stream; returns whether that changes anything.
    pub(super) fn entry(&mut self, entry: &Entry) -> bool {
        match &entry.what {
            What::Upstream(counts) => self.exchanges(counts),
            What::Depth(depth) => return self.depth(depth),
            What::Loss(Loss { reason, count, .. }) => {
                *self.counted.lost.entry(reason.name()).or_default() += count
            }
            What::Counts(counts) => self.counted.untracked = counts.untracked,
            What::Sources(sources) => self.counted.sources = sources.clone(),
            _ => return false,
        }
        true
    }

    fn name(&mut self, upstream: &Upstream) -> Arc<str> {
        self.names.of(upstream, ToString::to_string).0
    }

    fn exchanges(&mut self, UpstreamCounts { upstream, exchanges, .. }: &UpstreamCounts) {
        let before = self.last.put(upstream.clone(), *exchanges).unwrap_or(0);
        // One that was forgotten meanwhile counts anew.
        let new = if *exchanges < before { *exchanges } else { exchanges - before };
        let name = self.name(upstream);
        *self.counted.exchanges.entry(name).or_default() += new;
    }

    fn depth(&mut self, depth: &Depth) -> bool {
        let Depth { ns, listener, depth, limit } = depth;
        let (name, is_its_own) = self.listeners.of(listener, ToString::to_string);
        if !is_its_own {
            return false;
        }
        let known = self.counted.queues.get(&name);
        let since_ns = known.map_or(0, |queue| ns.saturating_sub(queue.seen_ns));
        let is_same_round = known.is_some() && since_ns < ROUND_NS;
        if is_same_round && known.is_some_and(|queue| queue.depth >= *depth) {
            return false;
        }
        let is_full = depth > limit;
        let is_new = known.is_none_or(|queue| (queue.depth, queue.limit) != (*depth, *limit)) || is_full;
        if is_full && !is_same_round {
            *self.counted.full_ns.entry(Arc::clone(&name)).or_default() += since_ns.min(LOOK_NS);
        } else {
            self.counted.full_ns.entry(Arc::clone(&name)).or_default();
        }
        self.counted.queues.insert(name, Queue { depth: *depth, limit: *limit, seen_ns: *ns });
        let before = self.counted.queues.len();
        self.counted.queues.retain(|_, queue| queue.seen_ns.saturating_add(GONE_NS) > *ns);
        is_new || self.counted.queues.len() != before
    }

    pub(super) fn delayed(&mut self, delayed: &Delayed) {
        let name = self.name(&delayed.upstream);
        if delayed.queue.is_some_and(|queue| queue.depth > queue.limit) {
            let stage = Cause::QueueSynDropped.detail();
            *self.counted.overflows.entry((Arc::clone(&name), stage)).or_default() += 1;
        }
        *self.counted.delayed.entry(name).or_default() += 1;
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        let cause = verdict.cause;
        let name = match &verdict.upstream {
            // A name that a request may have in it, of whoever it is.
            Upstream::Named(_) if cause != Cause::NoLiveUpstreams => "none".into(),
            upstream => self.name(upstream),
        };
        let mut key = (Arc::clone(&name), cause, verdict.confidence);
        if self.counted.failures.len() >= SERIES && !self.counted.failures.contains_key(&key) {
            key.0 = OTHER.into();
        }
        *self.counted.failures.entry(key).or_default() += 1;
        let times = self.counted.times.entry(cause.cause()).or_default();
        let us = verdict.moments.ended.unwrap_or(0).max(0).unsigned_abs();
        let bucket = BOUNDS.iter().position(|bound| us as f64 <= bound * 1e6).unwrap_or(BOUNDS.len());
        times.counts[bucket] += 1;
        times.sum_us = times.sum_us.saturating_add(us);
        match cause.cause() {
            "client_abort" => self.counted.client_aborts += 1,
            "accept_queue_overflow" => {
                *self.counted.overflows.entry((Arc::clone(&name), cause.detail())).or_default() += 1;
            }
            _ => {}
        }
        self.death(name, verdict);
    }

    /// Counts the worker, if it was killed.
    fn death(&mut self, upstream: Arc<str>, verdict: &Verdict) {
        let detail = verdict.cause.detail();
        let is_killed = matches!(detail, "worker_killed" | "worker_crashed" | "worker_oom_killed")
            && verdict.cause != Cause::NginxKilled;
        let Some(worker) = verdict.worker.as_ref().filter(|_| is_killed) else { return };
        self.deaths.retain(|(_, unix_ns)| unix_ns.saturating_add(DEATH_NS) > verdict.unix_ns);
        if self.deaths.iter().any(|(pid, _)| *pid == worker.process.pid) {
            return;
        }
        if self.deaths.len() >= DEATHS {
            self.deaths.pop_front();
        }
        self.deaths.push_back((worker.process.pid, verdict.unix_ns));
        let killer = match &verdict.killer {
            Some(killer) => self.killers.of(&killer.comm, String::clone).0,
            None if detail == "worker_killed" => "unknown".into(),
            // Of a crash and of a lack of memory the kernel kills.
            None => "kernel".into(),
        };
        let signal = worker.signal.clone().unwrap_or_else(|| "unknown".to_owned());
        *self.counted.killed.entry((upstream, signal, killer)).or_default() += 1;
    }

    /// Takes in what was seen of accept queues since the last time; returns whether anything was.
    pub(super) fn queues(&mut self, news: News) -> bool {
        let Some(waits) = &mut self.counted.waits else { return false };
        waits.take(
            news,
            &mut self.elsewhere,
            self.last.iter().map(|(upstream, _)| upstream),
            &mut self.listeners,
        )
    }

    /// Takes in how many words have no verdict; returns whether that is new.
    pub(super) fn unexplained(&mut self, count: u64) -> bool {
        std::mem::replace(&mut self.counted.unexplained, count) != count
    }
}

impl Counted {
    /// The hook that sees each fact; none for what is not seen.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&'static str, &str)> {
        Fact::ALL.iter().map(|fact| {
            (fact.name(), if self.sources.has(*fact) { self.sources.name(*fact) } else { "none" })
        })
    }
}
