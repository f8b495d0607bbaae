//! How long connections wait in accept queues, and how often these overflow: by the hooks of `why502 backlog`, which are attached only
//! while the queues are on the screen.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use wire::accept_queue::{BUCKETS, Listener};

use super::{FRAME, PERIOD, Shared};
use crate::{
    model::{failure::Failure, from_wire::listens_at, upstream::Upstream, waits::Waits},
    queues::Queues,
};

/// Attaches the hooks.
pub type Attach = Box<dyn Fn() -> Result<Queues, Failure> + Send>;

/// How long the hooks stay once the queues are no longer on the screen: a look at another view is to cost nothing.
const STAY: Duration = Duration::from_secs(10);

/// What the hooks see.
#[derive(Clone, Debug, Default)]
pub enum Accepting {
    /// They are not there.
    #[default]
    Unwatched,
    /// They cannot be.
    Refused,
    /// Of each listener, since they were attached.
    Watched(BTreeMap<Upstream, Accepted>),
}

impl Accepting {
    /// What they see of one listener.
    pub fn at(&self, listener: &Upstream) -> Option<&Accepted> {
        match self {
            Self::Watched(listeners) => listeners.get(listener),
            Self::Unwatched | Self::Refused => None,
        }
    }
}

/// What the hooks saw of the listeners at one address, each in a network namespace of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Connections that wait now in the fullest queue.
    pub depth: u32,
    /// How many may wait in that one; one more fits.
    pub limit: u32,
    /// The most that have waited in any.
    pub deepest: u32,
    /// How often a connection met a full queue, each of its attempts counted.
    pub overflows: u64,
    counts: [u64; BUCKETS],
    longest_ns: u64,
}

impl Accepted {
    /// How long connections waited; none where none has been accepted yet.
    pub fn waits(&self) -> Option<Waits> {
        Waits::of(&self.counts, self.longest_ns)
    }

    fn of(listener: &Listener) -> Self {
        let Listener { depth, limit, max_depth, waits, longest_wait_ns, .. } = listener;
        let Listener { syn_drops, ack_drops, unix_refused, unix_waited, .. } = listener;
        Self {
            depth: *depth,
            limit: *limit,
            deepest: *max_depth,
            overflows: syn_drops + ack_drops + unix_refused + unix_waited,
            counts: *waits,
            longest_ns: *longest_wait_ns,
        }
    }

    fn add(&mut self, other: &Self) {
        if other.depth > self.depth {
            (self.depth, self.limit) = (other.depth, other.limit);
        }
        self.deepest = self.deepest.max(other.deepest);
        self.overflows += other.overflows;
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
    }
}

/// The listeners by where they listen.
fn by_address(listeners: &[Listener]) -> BTreeMap<Upstream, Accepted> {
    let mut found: BTreeMap<Upstream, Accepted> = BTreeMap::new();
    for listener in listeners {
        let accepted = Accepted::of(listener);
        found.entry(listens_at(listener)).and_modify(|known| known.add(&accepted)).or_insert(accepted);
    }
    found
}

/// Watches the queues whenever they are on the screen, until it is over.
pub fn watch(shared: &Shared, attach: &Attach) {
    let mut hooks: Option<Queues> = None;
    let mut shown_at = Instant::now();
    while !shared.is_over.load(Ordering::SeqCst) {
        if shared.shows_queues.load(Ordering::SeqCst) {
            shown_at = Instant::now();
        } else {
            if hooks.is_some() && shown_at.elapsed() >= STAY {
                hooks = None;
                shared.state().accepting = Accepting::Unwatched;
            }
            thread::sleep(FRAME);
            continue;
        }
        let watched = match &mut hooks {
            Some(watched) => Ok(watched),
            None => attach().map(|attached| hooks.insert(attached)),
        };
        match watched.and_then(Queues::look) {
            Ok(look) => shared.state().accepting = Accepting::Watched(by_address(&look.open)),
            // What was missing is missing the next time, too.
            Err(error) => {
                let mut state = shared.state();
                state.accepting = Accepting::Refused;
                state.notice(&format!(
                    "waits are those of failed exchanges, and overflows are not seen here: {error:#}"
                ));
                return;
            }
        }
        thread::sleep(PERIOD);
    }
}

#[cfg(test)]
mod tests {
    use wire::accept_queue::bucket;
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn listeners_at_one_address_are_one_row_with_the_fullest_queue() {
        let mut listeners = [Listener::new_zeroed(); 2];
        for (listener, (depth, limit, waited)) in listeners.iter_mut().zip([(1, 4, 10), (3, 8, 2_000)]) {
            (listener.depth, listener.limit, listener.max_depth) = (depth, limit, depth + 1);
            (listener.syn_drops, listener.longest_wait_ns) = (2, waited * 1_000);
            listener.waits[bucket(waited)] += 1;
        }
        let found = by_address(&listeners);
        let [accepted] = found.values().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
        assert_eq!((accepted.depth, accepted.limit, accepted.deepest, accepted.overflows), (3, 8, 4, 4));
        let waits = accepted.waits().unwrap();
        assert_eq!((waits.count, waits.p50_us, waits.p99_us), (2, 10, 2_000));
    }
}
