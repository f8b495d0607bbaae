//! What slow workers are doing: while an exchange is open for longer than a second, its worker is looked at once a
//! second, through /proc, without stopping it.

mod activities;
mod activity;
mod crews;
mod frozen;
mod glimpse;
mod sockets;
mod syscall;
mod wait;
mod words;

use std::{
    collections::{BTreeSet, HashMap},
    thread,
    time::Duration,
};

pub use activities::Activities;
pub use activity::{Activity, Found};
pub use crews::{Crew, crews};
pub(crate) use frozen::stands_still;
use glimpse::{Glimpse, Used, look};
use sockets::Sockets;
use tokio::sync::mpsc::{self, Receiver};

use crate::{
    model::{
        clock::monotonic_ns,
        doing::{Doing, Look, Peer, Served, Target},
        pressure::Reading,
    },
    procfs::pressure::Meter,
};

/// How old an exchange is when its worker is first looked at, in ns.
pub const SLOW_NS: u64 = 1_000_000_000;

/// How old an exchange is when shortages are first measured for it, in ns: of one that is to be slow, most is still to come. Those that
/// are over sooner cost nothing.
const MEASURED_NS: u64 = 250_000_000;

/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Threads that are looked at in one round, so that a round stays cheap in the worst of incidents. The oldest exchanges
/// come first: they are the next to time out.
const MOST_THREADS: usize = 64;

/// The same, with those that cannot be looked at.
const MOST_TRIED: usize = 4 * MOST_THREADS;

/// What one round found.
#[derive(Debug)]
pub struct Round {
    /// What the kernel counts of shortages, if nginx waits for anybody.
    pub pressure: Option<Reading>,
    /// What slow workers were doing.
    pub looks: Vec<Look>,
}

/// Rounds of looks that may wait to be taken in; the sampler then waits, too.
const MOST_ROUNDS: usize = 4;

/// Looks at slow workers, in a thread of its own: whatever keeps a look waiting, tracing goes on. `open` lists the exchanges
/// that began before a moment (ns, monotonic) and are still open. What each round finds comes out of the receiver; the thread
/// ends some time after that is dropped.
///
/// # Errors
/// If no thread can be started.
pub fn start(
    mut open: impl FnMut(u64) -> (Vec<Served>, bool) + Send + 'static,
) -> std::io::Result<Receiver<Round>> {
    let (send, found) = mpsc::channel(MOST_ROUNDS);
    let mut rounds = Rounds::default();
    let meter = Meter::default();
    thread::Builder::new().name("sampler".to_owned()).spawn(move || {
        loop {
            thread::sleep(PERIOD);
            if send.is_closed() {
                break;
            }
            let now = monotonic_ns();
            let (mut served, is_any_waiting) = open(now.saturating_sub(MEASURED_NS));
            let waiting = served.iter().filter(|served| !served.is_answered);
            let pids: BTreeSet<_> = waiting.map(|served| served.pid.cast_unsigned()).collect();
            let pressure = is_any_waiting.then(|| meter.read(pids));
            served.retain(|served| served.since_ns < now.saturating_sub(SLOW_NS));
            let looks = rounds.round(&served);
            let is_empty = looks.is_empty() && pressure.is_none();
            if !is_empty && send.blocking_send(Round { pressure, looks }).is_err() {
                break;
            }
        }
    })?;
    Ok(found)
}

/// What the first thread of a process does at this moment. None if it has gone, or may not be looked at.
pub(crate) fn doing(pid: i32) -> Option<Doing> {
    let mut sockets = Sockets::default();
    sockets.begin_round([pid].into_iter());
    let served =
        Served { name: (0, 0), exchange: 0, since_ns: 0, is_answered: false, pid, tid: pid, local: None };
    Some(look(&served, None, &mut sockets, monotonic_ns())?.doing)
}

/// The state between two rounds.
#[derive(Debug, Default)]
struct Rounds {
    /// What each thread had used at the last look.
    used: HashMap<i32, Used>,
    sockets: Sockets,
}

impl Rounds {
    /// Looks at the workers of these exchanges once: one look at each thread.
    fn round(&mut self, served: &[Served]) -> Vec<Look> {
        let (mut looks, mut used, mut tried) = (Vec::new(), HashMap::new(), HashMap::new());
        let order = in_order(served);
        self.sockets.begin_round(order.iter().map(|served| served.pid));
        for served in order {
            let exchange = (served.name, served.exchange);
            if let Some(found) = tried.get(&served.tid) {
                if let Some(number) = found {
                    let look: &mut Look = &mut looks[*number];
                    look.exchanges.push(exchange);
                }
                continue;
            }
            if looks.len() == MOST_THREADS || tried.len() == MOST_TRIED {
                continue;
            }
            let found = look(served, self.used.get(&served.tid), &mut self.sockets, monotonic_ns());
            tried.insert(served.tid, found.is_some().then_some(looks.len()));
            if let Some(Glimpse { doing, used: now, has_other_threads }) = found {
                used.insert(served.tid, now);
                looks.push(Look {
                    ns: now.at_ns,
                    pid: served.pid,
                    tid: served.tid,
                    doing,
                    has_other_threads,
                    exchanges: vec![exchange],
                });
            }
        }
        self.used = used;
        looks
    }
}

/// Those first that are the next to time out.
fn in_order(served: &[Served]) -> Vec<&Served> {
    let mut order: Vec<_> = served.iter().collect();
    order.sort_by_key(|served| (served.is_answered, served.since_ns));
    order
}

#[cfg(test)]
mod tests;
