//! What evidence amounts to, within bounded memory however much there is of it.

use std::collections::BTreeMap;

use crate::{
    model::{
        cause::Cause,
        clock::ClockOffset,
        stream::{Depth, Entry, What},
        upstream::Upstream,
        verdict::{Process, Summary, Verdict},
    },
    pipeline::Emitted,
    roots::{Kinds, MOST_KINDS, MOST_TEXT},
};

/// Failures that are shown each; what comes on top is only counted.
pub const MOST_ROWS: usize = 1_000;

/// Bars of a chart over time.
pub const BARS: usize = 96;

/// Everything that is emitted.
#[derive(Debug, Default)]
pub struct Digest {
    /// The first and the last moment of the evidence, in ns since 1970.
    pub range: Option<(i64, i64)>,
    /// Failures by cause and upstream.
    pub kinds: Kinds,
    /// Failures over time, by cause.
    pub failures: Timeline<BTreeMap<Cause, u64>>,
    /// The fullest that each listener's queue was, over time.
    pub depths: BTreeMap<Upstream, Timeline<Queue>>,
    /// How long connections waited to be accepted.
    pub waits: Histogram,
    /// How long workers had requests that failed.
    pub services: Histogram,
    /// Workers that died, and of what.
    pub deaths: Vec<Death>,
    /// The first failure.
    pub first: Option<Box<Verdict>>,
    /// The one that took longest.
    pub worst: Option<Box<Verdict>>,
    /// The first failures.
    pub rows: Vec<Verdict>,
    /// Failures that are not in `rows`.
    pub omitted: u64,
    /// Bytes of the texts in `rows`.
    row_bytes: usize,
    /// Requests that workers executed for nobody.
    pub for_nobody: u64,
    /// The sums.
    pub summary: Summary,
}

/// A worker's death.
#[derive(Debug)]
pub struct Death {
    /// When, in ns since 1970.
    pub unix_ns: i64,
    /// Who.
    pub worker: Process,
    /// The signal.
    pub signal: String,
    /// Who sent it.
    pub killer: Option<Process>,
}

/// An accept queue's worst moment within a bar.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queue {
    /// Connections that waited.
    pub depth: u32,
    /// The backlog.
    pub limit: u32,
}

/// Figures over time, in as many bars as there is room for.
#[derive(Debug)]
pub struct Timeline<T> {
    /// Where the first bar begins, in ns since 1970.
    start: Option<i64>,
    /// How long a bar is, in ns.
    pub width: i64,
    /// The bars.
    pub bars: Vec<T>,
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self { start: None, width: 100_000_000, bars: Vec::new() }
    }
}

/// Can be drawn in one bar with another.
pub trait Merge: Default {
    /// Draws both.
    fn merge(&mut self, other: Self);
}

impl Merge for BTreeMap<Cause, u64> {
    fn merge(&mut self, other: Self) {
        for (cause, count) in other {
            *self.entry(cause).or_default() += count;
        }
    }
}

impl Merge for Queue {
    fn merge(&mut self, other: Self) {
        let is_worse = |one: &Self| u64::from(one.depth) * u64::from(self.limit.max(1));
        if self.limit == 0 || is_worse(&other) > u64::from(self.depth) * u64::from(other.limit.max(1)) {
            *self = other;
        }
    }
}

impl<T: Merge> Timeline<T> {
    /// Adds a figure. The timeline begins at `start` if it does not yet.
    fn add(&mut self, start: i64, unix_ns: i64, value: T) {
        let number = self.number(start, unix_ns);
        self.at(number).merge(value);
    }

    /// Goes on until a moment.
    fn extend(&mut self, start: i64, unix_ns: i64) {
        let number = self.number(start, unix_ns);
        self.at(number);
    }

    /// The bar of a moment. One before the start, since the clock was set back, belongs to the first.
    fn number(&mut self, start: i64, unix_ns: i64) -> usize {
        let start = *self.start.get_or_insert(start);
        let since = unix_ns.saturating_sub(start).max(0);
        while since / self.width >= BARS as i64 {
            self.coarsen();
        }
        usize::try_from(since / self.width).unwrap_or(0)
    }

    /// Where a bar begins, in ns since 1970.
    pub fn begin(&self, number: usize) -> i64 {
        self.start.unwrap_or_default().saturating_add(self.width.saturating_mul(number as i64))
    }

    fn at(&mut self, number: usize) -> &mut T {
        while self.bars.len() <= number {
            self.bars.push(T::default());
        }
        &mut self.bars[number]
    }

    /// Two bars become one.
    fn coarsen(&mut self) {
        let bars = std::mem::take(&mut self.bars);
        for (number, bar) in bars.into_iter().enumerate() {
            self.at(number / 2).merge(bar);
        }
        self.width = self.width.saturating_mul(2);
    }
}

/// How long a look at a queue holds, in ns: they come once a second.
const HOLDS: i64 = 1_500_000_000;

impl Timeline<Queue> {
    /// A queue is taken to be as full as it was at the look before.
    fn hold(&mut self) {
        let mut last = None::<(usize, Queue)>;
        for (number, bar) in self.bars.iter_mut().enumerate() {
            if bar.limit > 0 {
                last = Some((number, *bar));
            } else if let Some((at, queue)) = last
                && ((number - at) as i64).saturating_mul(self.width) < HOLDS
            {
                *bar = queue;
            }
        }
    }
}

/// Durations by their order of magnitude: in each bucket those shorter than its bound.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many, by bucket.
    pub counts: [u64; Histogram::BOUNDS.len()],
}

impl Histogram {
    /// The bounds, in microseconds, with their names.
    pub const BOUNDS: [(u64, &'static str); 9] = [
        (1_000, "under 1 ms"),
        (10_000, "1 to 10 ms"),
        (100_000, "10 to 100 ms"),
        (1_000_000, "0.1 to 1 s"),
        (3_000_000, "1 to 3 s"),
        (10_000_000, "3 to 10 s"),
        (30_000_000, "10 to 30 s"),
        (60_000_000, "30 to 60 s"),
        (u64::MAX, "60 s and more"),
    ];

    fn add(&mut self, us: i64) {
        let us = u64::try_from(us).unwrap_or(0);
        let bucket = Self::BOUNDS.iter().position(|(bound, _)| us < *bound).unwrap_or(Self::BOUNDS.len() - 1);
        self.counts[bucket] += 1;
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Digest {
    /// Takes in an entry, before it is taken in by the pipeline.
    pub fn entry(&mut self, entry: &Entry, clock_offset: ClockOffset) {
        let wall = |ns: u64| clock_offset.0.saturating_add_unsigned(ns);
        let at = wall(entry.at_ns);
        self.range = Some(match self.range {
            Some((first, last)) => (first.min(at), last.max(at)),
            None => (at, at),
        });
        if let What::Depth(Depth { ns, listener, depth, limit }) = &entry.what
            && (self.depths.contains_key(listener) || self.depths.len() < MOST_KINDS)
        {
            let queue = Queue { depth: *depth, limit: *limit };
            let start = self.start();
            self.depths.entry(listener.clone()).or_default().add(start, wall(*ns), queue);
        }
    }

    /// Where every timeline begins.
    fn start(&self) -> i64 {
        self.range.map_or(0, |(first, _)| first)
    }

    /// To be called when everything has been taken in: every timeline then shows the same time.
    pub fn complete(&mut self, summary: Summary) {
        self.summary = summary;
        let (start, end) = self.range.unwrap_or_default();
        self.failures.extend(start, end);
        for depths in self.depths.values_mut() {
            depths.extend(start, end);
            depths.hold();
        }
    }

    /// Takes in what is emitted.
    pub fn emitted(&mut self, emitted: Emitted) {
        match emitted {
            Emitted::Verdict(verdict) => self.verdict(verdict),
            Emitted::WorkerOutlived(_) => self.for_nobody += 1,
            Emitted::Delayed(_) | Emitted::Note(_) | Emitted::Answer(_) | Emitted::Withheld(_) => {}
        }
    }

    fn verdict(&mut self, verdict: Box<Verdict>) {
        let unix_ns = verdict.unix_ns;
        self.failures.add(self.start(), unix_ns, [(verdict.cause, 1)].into());
        self.kinds.add(&verdict);
        let moments = &verdict.moments;
        if let (Some(connected), Some(accepted)) = (moments.connected, moments.accepted) {
            self.waits.add(accepted - connected);
        }
        if let (Some(accepted), Some(ended)) = (moments.accepted, moments.worker_ended.or(moments.ended)) {
            self.services.add(ended - accepted);
        }
        if let Some(worker) = &verdict.worker
            && let Some(signal) = &worker.signal
            && self.deaths.len() < MOST_ROWS
            && !self.deaths.iter().any(|death| death.worker.pid == worker.process.pid)
        {
            self.deaths.push(Death {
                unix_ns,
                worker: worker.process.clone(),
                signal: signal.clone(),
                killer: verdict.killer.clone(),
            });
        }
        let took = |verdict: &Verdict| verdict.moments.ended;
        if self.worst.as_deref().is_none_or(|worst| took(worst) < took(&verdict)) {
            self.worst = Some(verdict.clone());
        }
        if self.first.is_none() {
            self.first = Some(verdict.clone());
        }
        let bytes = verdict.text_bytes();
        if self.rows.len() < MOST_ROWS && self.row_bytes + bytes <= MOST_TEXT {
            self.row_bytes += bytes;
            self.rows.push(*verdict);
        } else {
            self.omitted += 1;
        }
    }

    /// All failures.
    pub fn total(&self) -> u64 {
        self.kinds.iter().map(|(_, kind)| kind.count).sum()
    }
}
