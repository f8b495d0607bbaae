//! How long all connections wait in accept queues, and how often they meet them full: by the hooks of `why502 backlog`, which are attached
//! only where that is asked for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use wire::accept_queue::{BUCKETS, Listener, Stats, longest_in};

use super::{
    family::{Family, Histogram, Value, family},
    names::Names,
    table,
};
use crate::{
    model::{
        budget,
        from_wire::listens_at,
        upstream::{Upstream, leads_to},
    },
    queues::{Look, Name, Queues, name},
};

/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// How many upper bounds there are.
const COUNT: usize = 18;

/// The first bound is this power of two, in microseconds, and each of the others twice the one before: the kernel side counts by steps in
/// which powers of two are bounds, so that no wait is guessed to be below one.
const FIRST_LOG2: u32 = 9;

/// Upper bounds (s), from half a millisecond to a minute; beyond the last one is one more.
const BOUNDS: [f64; COUNT] = {
    let mut bounds = [0.0; COUNT];
    let mut at = 0;
    while at < COUNT {
        bounds[at] = (1_u64 << (FIRST_LOG2 as usize + at)) as f64 / 1e6;
        at += 1;
    }
    bounds
};

/// Where a connection meets a full queue, as [`Waited::drops`] has it.
const STAGES: [&str; 3] = ["syn", "final_ack", "unix"];

/// The bound that a bucket of the kernel side's is below.
fn bound(bucket: usize) -> usize {
    let is_below = |at: &usize| longest_in(bucket) < 1 << (FIRST_LOG2 as usize + at);
    (0..COUNT).find(is_below).unwrap_or(COUNT)
}

/// What was seen of the listeners at one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waited {
    /// Waits up to each bound and above the one before, and beyond the last.
    counts: [u64; COUNT + 1],
    /// All of them together (ns).
    ns: u64,
    /// How often something met the full queue, by [`STAGES`].
    drops: [u64; STAGES.len()],
}

impl Waited {
    fn of(listener: &Listener) -> Self {
        let mut counts = [0; COUNT + 1];
        for (bucket, count) in (0..BUCKETS).zip(listener.waits) {
            counts[bound(bucket)] += count;
        }
        let drops = [listener.syn_drops, listener.ack_drops, listener.unix_refused + listener.unix_waited];
        Self { counts, ns: listener.waited_ns, drops }
    }

    fn shown(&self) -> Histogram<'_> {
        Histogram { bounds: &BOUNDS, counts: &self.counts, seconds: self.ns as f64 / 1e9 }
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn each(&mut self, other: &Self, combined: impl Fn(u64, u64) -> u64) {
        let mine = self.counts.iter_mut().chain(&mut self.drops).chain([&mut self.ns]);
        let theirs = other.counts.iter().chain(&other.drops).chain([&other.ns]);
        mine.zip(theirs).for_each(|(mine, theirs)| *mine = combined(*mine, *theirs));
    }

    fn add(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    /// What has come since then. The kernel side counts while it is read: what one reading lacks the next one has.
    fn since(mut self, then: &Self) -> Self {
        self.each(then, u64::saturating_sub);
        self
    }
}

/// By address. Bounded, for whoever may listen may do so at many.
#[derive(Debug, Default)]
pub(super) struct ByAddress(HashMap<Upstream, Waited>);

impl ByAddress {
    /// Adds to one; returns whether there was room for that.
    fn add(&mut self, listener: Upstream, waited: &Waited) -> bool {
        let has_room = self.0.len() < budget::CLOSED_LISTENERS || self.0.contains_key(&listener);
        if has_room {
            self.0.entry(listener).or_default().add(waited);
        }
        has_room
    }
}

/// What is in no other count, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    /// Waits whose beginning others have pushed out.
    wait_pushed_out: u64,
    /// Listeners, or what was seen of one, that found no room.
    listener_untracked: u64,
    /// Listeners whose end was not emitted: what came since the last look at them is lost.
    end_unseen: u64,
}

impl Lost {
    fn by_reason(self) -> [(&'static str, u64); 3] {
        let Self { wait_pushed_out, listener_untracked, end_unseen } = self;
        [
            ("wait_pushed_out", wait_pushed_out),
            ("listener_untracked", listener_untracked),
            ("end_unseen", end_unseen),
        ]
    }

    fn add(&mut self, other: Self) {
        self.wait_pushed_out += other.wait_pushed_out;
        self.listener_untracked += other.listener_untracked;
        self.end_unseen += other.end_unseen;
    }
}

/// What was seen since it was last asked for.
#[derive(Debug, Default)]
pub(super) struct News {
    at: ByAddress,
    lost: Lost,
}

/// What was seen of each listener by the last look.
#[derive(Debug, Default)]
struct Seen {
    listeners: HashMap<Name, Waited>,
    stats: Stats,
}

impl Seen {
    /// Takes in a look.
    fn take(&mut self, look: &Look, news: &mut News) {
        let mut before = std::mem::take(&mut self.listeners);
        for listener in look.open.iter().chain(&look.closed) {
            let (name, now) = (name(listener), Waited::of(listener));
            let then = self.listeners.insert(name, now.clone()).or_else(|| before.remove(&name));
            let new = match then {
                Some(then) => now.since(&then),
                None => now,
            };
            if !new.is_nothing() && !news.at.add(listens_at(listener), &new) {
                news.lost.listener_untracked += 1;
            }
        }
        for listener in &look.closed {
            self.listeners.remove(&name(listener));
        }
        let Stats { waits_unkept, listeners_untracked, .. } = look.stats;
        news.lost.add(Lost {
            wait_pushed_out: waits_unkept.saturating_sub(self.stats.waits_unkept),
            listener_untracked: listeners_untracked.saturating_sub(self.stats.listeners_untracked),
            end_unseen: before.len() as u64,
        });
        self.stats = look.stats;
    }
}

/// Looks, in a thread of its own, which ends some time after this is dropped.
#[derive(Debug)]
pub(super) struct Watch(Arc<Mutex<News>>);

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start(mut queues: Queues) -> io::Result<Self> {
        let news = Arc::<Mutex<News>>::default();
        let theirs = Arc::clone(&news);
        thread::Builder::new().name("queues".to_owned()).spawn(move || {
            let mut seen = Seen::default();
            // Nobody else has it any more once the other side is dropped.
            while Arc::strong_count(&theirs) > 1 {
                match queues.look() {
                    Ok(look) => seen.take(&look, &mut held(&theirs)),
                    Err(error) => {
                        crate::notice!(
                            "how long connections wait in accept queues is not seen any more: {error:#}"
                        );
                        return;
                    }
                }
                thread::sleep(PERIOD);
            }
        })?;
        Ok(Self(news))
    }

    /// What was seen since this was last called.
    pub(super) fn news(&self) -> News {
        std::mem::take(&mut held(&self.0))
    }
}

fn held(news: &Mutex<News>) -> MutexGuard<'_, News> {
    news.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is shown of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    at: BTreeMap<Arc<str>, Waited>,
    lost: Lost,
}

impl Waits {
    /// Takes in news of listeners at these upstreams; `kept` are those at which there has been none so far. Returns whether that changes
    /// anything.
    pub(super) fn take<'a>(
        &mut self,
        news: News,
        kept: &mut ByAddress,
        upstreams: impl Iterator<Item = &'a Upstream>,
        names: &mut Names<Upstream>,
    ) -> bool {
        let before = self.lost;
        self.lost.add(news.lost);
        let upstreams = Places::of(upstreams);
        let mut found: Vec<_> = kept.0.extract_if(|listener, _| upstreams.has(listener)).collect();
        for (listener, waited) in news.at.0 {
            if upstreams.has(&listener) {
                found.push((listener, waited));
            } else if !kept.add(listener, &waited) {
                self.lost.listener_untracked += 1;
            }
        }
        for (listener, waited) in &found {
            let (name, _) = names.of(listener, ToString::to_string);
            self.at.entry(name).or_default().add(waited);
        }
        !found.is_empty() || self.lost != before
    }

    /// As metrics.
    pub(super) fn families(&self) -> [Family<'_>; 3] {
        let drops = self.at.iter().flat_map(|(at, waited)| {
            let drops = STAGES.into_iter().zip(waited.drops).filter(|(_, count)| *count > 0);
            drops.map(move |(stage, count)| (vec![&**at, stage], Value::Count(count)))
        });
        let lost = self.lost.by_reason().into_iter();
        [
            family(
                table::WAITS,
                self.at.iter().map(|(at, waited)| (vec![&**at], Value::Histogram(waited.shown()))),
            ),
            family(table::DROPS, drops),
            family(table::WAITS_LOST, lost.map(|(reason, count)| (vec![reason], Value::Count(count)))),
        ]
    }
}

/// Where upstreams are.
#[derive(Debug, Default)]
struct Places<'a> {
    /// By port, for there may be many.
    inet: HashMap<u16, Vec<SocketAddr>>,
    unix: HashSet<&'a Path>,
}

impl<'a> Places<'a> {
    fn of(upstreams: impl Iterator<Item = &'a Upstream>) -> Self {
        let mut places = Self::default();
        for upstream in upstreams {
            match upstream {
                Upstream::Inet(address) => places.inet.entry(address.port()).or_default().push(*address),
                Upstream::Unix(path) => {
                    places.unix.insert(path);
                }
                Upstream::Named(_) => {}
            }
        }
        places
    }

    /// Whether a connection to one of them may end up at a listener.
    fn has(&self, listener: &Upstream) -> bool {
        match listener {
            Upstream::Inet(listener) => self
                .inet
                .get(&listener.port())
                .is_some_and(|here| here.iter().any(|upstream| leads_to(*upstream, *listener))),
            Upstream::Unix(path) => self.unix.contains(path.as_path()),
            Upstream::Named(_) => false,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use wire::accept_queue::bucket;
    use zerocopy::FromZeros as _;

    use super::*;

    /// A listener at a port at which connections have waited so long (us).
    fn listener(port: u16, since_ns: u64, waits: &[u64]) -> Listener {
        let mut listener = Listener::new_zeroed();
        (listener.sock, listener.since_ns) = (u64::from(port), since_ns);
        (listener.local.family, listener.local.port) = (wire::FAMILY_INET, port);
        for us in waits {
            listener.waits[bucket(*us)] += 1;
            listener.waited_ns += us * 1_000;
        }
        listener
    }

    fn at(port: u16) -> Upstream {
        listens_at(&listener(port, 1, &[]))
    }

    fn look(open: &[Listener], closed: &[Listener]) -> Look {
        Look { open: open.to_vec(), closed: closed.to_vec(), stats: Stats::default() }
    }

    /// Two waits, of 600 us and 2 ms, and a drop at `[::]:1`.
    pub(in crate::sink::metrics) fn shown() -> Waits {
        let mut listener = listener(1, 1, &[600, 2_000]);
        listener.syn_drops = 1;
        let (mut seen, mut news, mut waits) = (Seen::default(), News::default(), Waits::default());
        seen.take(&look(&[listener], &[]), &mut news);
        assert!(waits.take(news, &mut ByAddress::default(), [at(1)].iter(), &mut Names::new(1)));
        waits
    }

    #[test]
    fn no_bucket_of_the_kernel_sides_has_a_bound_inside() {
        for us in (0..100_000).chain((17..32).flat_map(|power| [(1 << power) - 1, 1 << power])) {
            let at = bound(bucket(us));
            assert!(at == COUNT || us as f64 / 1e6 < BOUNDS[at], "{us}");
            assert!(at == 0 || us as f64 / 1e6 >= BOUNDS[at - 1], "{us}");
        }
        assert!(BOUNDS.is_sorted() && BOUNDS[0] < 0.001 && BOUNDS[COUNT - 1] > 60.0);
    }

    #[test]
    fn each_wait_counts_once_whatever_becomes_of_its_listener() {
        let (mut seen, mut news) = (Seen::default(), News::default());
        seen.take(&look(&[listener(1, 1, &[10]), listener(2, 1, &[])], &[]), &mut news);
        seen.take(&look(&[listener(1, 1, &[10, 20]), listener(2, 1, &[])], &[]), &mut news);
        // It was closed while it was looked at, and another one is there now.
        let (closed, next) = (listener(1, 1, &[10, 20, 600]), listener(1, 2, &[2_000]));
        seen.take(&look(&[listener(1, 1, &[10, 20]), next], &[closed]), &mut news);
        // One came and went between two looks, and the end of another one was not emitted.
        seen.take(&look(&[next], &[listener(3, 9, &[5])]), &mut news);
        assert_eq!(seen.listeners.len(), 1);
        let counts = |port: u16| news.at.0[&at(port)].counts.iter().sum::<u64>();
        assert_eq!((counts(1), counts(3), news.at.0.contains_key(&at(2))), (4, 1, false));
        let first = &news.at.0[&at(1)];
        assert_eq!((first.counts[..3].to_vec(), first.ns), (vec![2, 1, 1], 2_630_000));
        assert_eq!(news.lost, Lost { end_unseen: 1, ..Lost::default() });
    }

    #[test]
    fn what_was_seen_before_an_upstream_was_known_is_kept_for_it_within_bounds() {
        let (mut waits, mut kept, mut names) = (Waits::default(), ByAddress::default(), Names::new(1));
        let news = |ports: std::ops::Range<u16>| {
            let (mut seen, mut news) = (Seen::default(), News::default());
            seen.take(&look(&ports.map(|port| listener(port, 1, &[10])).collect::<Vec<_>>(), &[]), &mut news);
            news
        };
        assert!(!waits.take(news(1..3), &mut kept, [].iter(), &mut names));
        let upstreams = [at(1), at(2), Upstream::Unix("/none".into())];
        assert!(waits.take(news(2..4), &mut kept, upstreams.iter(), &mut names));
        let counts: Vec<u64> = waits.at.values().map(|waited| waited.counts[0]).collect();
        // One name is there for two listeners: the other one is `other`.
        assert_eq!((waits.at.len(), counts.iter().sum::<u64>(), kept.0.len()), (2, 3, 1));
        waits.take(news(100..5_000), &mut kept, [].iter(), &mut names);
        assert_eq!(kept.0.len(), budget::CLOSED_LISTENERS);
        assert!(waits.lost.listener_untracked > 0);
    }
}
