//! Metrics for Prometheus: what a run counts, as a page that is served from a thread of its own.
//!
//! The event loop counts, and puts a copy of what it has where the server takes it, and whoever sends metrics on: none ever waits for the
//! other.

mod bpf;
mod counted;
mod family;
mod names;
mod page;
mod reading;
mod server;
mod table;
mod waits;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::time::ClockId;

pub use server::Server;
pub use table::{Kind, METRICS, Metric};

use super::{Sink, drops::Drops};
use crate::model::{
    clock::{self, monotonic_ns},
    facts::Sources,
    stream::{Entry, What},
    verdict::{Delayed, Summary, Verdict},
};
use crate::queues::Queues;
use counted::{Counted, Counter};
pub(super) use family::{Family, Histogram, Series, Value};
pub(super) use reading::Reading;
use waits::{Waits, Watch};

/// How long what was counted may wait until a scrape sees it (ns).
const PUBLISH_NS: u64 = 500_000_000;

/// How old what the whole run amounts to may be (ns), while anything happens.
const SUMS_NS: u64 = 1_000_000_000;

/// How many times as old it may become in the end where nothing does: each time wakes the process.
const QUIET: u64 = 10;

/// What the event loop and the server share.
#[derive(Debug)]
pub struct Shared {
    /// When counting began (ns since 1970).
    began_ns: i64,
    counted: Mutex<Arc<Counted>>,
    /// When the event loop last turned (ns, monotonic).
    turned_ns: AtomicU64,
    /// Lines of JSON that could not be written.
    lines_lost: Arc<AtomicU64>,
    /// Verdicts that the sinks which send them could not hand on, by the sink's name.
    dropped: Mutex<Vec<(&'static str, Arc<Drops>)>>,
}

impl Shared {
    /// Where lines of JSON are counted that could not be written.
    pub fn lines_lost(&self) -> &Arc<AtomicU64> {
        &self.lines_lost
    }

    /// Where a sink of this name counts the verdicts that it could not hand on.
    pub(super) fn drops_of(&self, sink: &'static str) -> Arc<Drops> {
        let drops = Arc::default();
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push((sink, Arc::clone(&drops)));
        drops
    }

    fn counted(&self) -> Arc<Counted> {
        Arc::clone(&self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Counts.
#[derive(Debug)]
pub struct Metrics {
    counter: Counter,
    shared: Arc<Shared>,
    /// Something was counted since the server was given what there is.
    is_new: bool,
    published_ns: u64,
    summed_ns: u64,
    /// How often that was said in a row with nothing new before it.
    quiet: u64,
    /// None where nobody looks at all connections.
    watch: Option<Watch>,
}

impl Metrics {
    /// Counts from now on, so many upstreams by their names.
    pub fn new(sources: &Sources, upstreams: usize) -> Self {
        let (counter, now_ns) = (Counter::new(sources, upstreams), monotonic_ns());
        let shared = Arc::new(Shared {
            began_ns: clock::now(ClockId::CLOCK_REALTIME),
            counted: Mutex::new(Arc::new(counter.counted.clone())),
            turned_ns: AtomicU64::new(now_ns),
            lines_lost: Arc::default(),
            dropped: Mutex::default(),
        });
        Self {
            counter,
            shared,
            is_new: false,
            published_ns: now_ns,
            summed_ns: now_ns,
            quiet: 0,
            watch: None,
        }
    }

    /// Facts have these sources to begin with.
    pub fn begin(&mut self, sources: &Sources) {
        self.counter.counted.sources = sources.clone();
        self.is_new = true;
    }

    /// Counts how long all connections wait in accept queues, from now on.
    ///
    /// # Errors
    /// If there can be no thread for that.
    pub fn watch_queues(&mut self, queues: Queues) -> io::Result<()> {
        self.watch = Some(Watch::start(queues)?);
        self.counter.counted.waits = Some(Waits::default());
        Ok(())
    }

    /// What a server serves.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn publish(&mut self, now_ns: u64) {
        (self.is_new, self.published_ns) = (false, now_ns);
        self.shared.turned_ns.store(now_ns, Ordering::Relaxed);
        let counted = Arc::new(self.counter.counted.clone());
        let mut shown = self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let older = std::mem::replace(&mut *shown, counted);
        // Nobody waits while it goes.
        drop(shown);
        drop(older);
    }
}

impl Sink for Metrics {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        // Looks at accept queues come once a second, whatever happens.
        if !matches!(entry.what, What::Depth(_)) {
            self.quiet = 0;
        }
        self.is_new |= self.counter.entry(entry);
        Ok(())
    }

    fn verdict(&mut self, verdict: &Verdict) -> io::Result<()> {
        self.counter.verdict(verdict);
        self.is_new = true;
        Ok(())
    }

    fn delayed(&mut self, delayed: &Delayed) -> io::Result<()> {
        self.counter.delayed(delayed);
        self.is_new = true;
        Ok(())
    }

    fn sums_ns(&self) -> Option<u64> {
        let times = if self.watch.is_some() { 1 } else { self.quiet.clamp(1, QUIET) };
        Some(self.summed_ns.saturating_add(times * SUMS_NS))
    }

    fn so_far(&mut self, sums: &Summary) -> io::Result<()> {
        self.summed_ns = monotonic_ns();
        self.quiet += 1;
        let unexplained = sums.words.as_ref().map_or(0, |words| words.unexplained.count);
        self.is_new |= self.counter.unexplained(unexplained);
        if let Some(watch) = &self.watch {
            self.is_new |= self.counter.queues(watch.news());
        }
        Ok(())
    }

    fn summary(&mut self, _: &Summary) -> io::Result<()> {
        // Whoever sends metrics on sends the last ones now.
        self.publish(monotonic_ns());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let now_ns = monotonic_ns();
        self.shared.turned_ns.store(now_ns, Ordering::Relaxed);
        if self.wake_ns().is_some_and(|due| due <= now_ns) {
            self.publish(now_ns);
        }
        Ok(())
    }

    fn wake_ns(&self) -> Option<u64> {
        self.is_new.then_some(self.published_ns + PUBLISH_NS)
    }
}

#[cfg(test)]
mod tests;
