//! What slow workers are doing: while an exchange is open for longer than a second, its worker is looked at once a
//! second, through /proc, without stopping it.

mod activity;
mod doing;
mod sockets;
mod syscall;
mod thread;
mod wait;
mod words;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread as std_thread,
    time::Duration,
};

pub use activity::Activity;
pub use doing::{Doing, Peer, Target};
use sockets::Sockets;
use thread::{Look, Used, look};
use tracer_ebpf::NginxEnd;

use crate::clock::monotonic_ns;

/// How old an exchange is when its worker is first looked at, in ns.
const SLOW_NS: u64 = 1_000_000_000;

/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Threads that are looked at in one round, so that a round stays cheap in the worst of incidents. The oldest exchanges
/// come first: they are the next to time out.
const MOST_THREADS: usize = 64;

/// The same, with those that cannot be looked at.
const MOST_TRIED: usize = 4 * MOST_THREADS;

/// Rounds for which the looks at an exchange that is no longer open are kept: longer than the ledger waits for what
/// nginx does next.
const KEPT_ROUNDS: u64 = 4;

/// Names a connection: nginx's socket and when it connected.
type Name = (u64, u64);

/// An open exchange that a worker serves on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// nginx's socket, and when it connected (ns, monotonic).
    pub name: (u64, u64),
    /// Which exchange on this connection it is.
    pub exchange: u32,
    /// When it began (ns, monotonic).
    pub since_ns: u64,
    /// Whether nginx has begun to read the response: a kept-alive connection between two exchanges looks so, too.
    pub is_answered: bool,
    /// The process that took it up.
    pub pid: i32,
    /// The thread that did.
    pub tid: i32,
    /// The worker's own address on this connection; none on a unix socket.
    pub local: Option<SocketAddr>,
}

/// Looks at slow workers, in a thread of its own: whatever keeps a look waiting, tracing goes on. The thread ends some
/// time after this is dropped.
#[derive(Debug)]
pub struct Sampler {
    kept: Arc<Mutex<HashMap<Name, Kept>>>,
    _end: mpsc::Sender<()>,
}

/// What was learnt of one exchange.
#[derive(Clone, Debug)]
struct Kept {
    exchange: u32,
    activity: Activity,
    /// The last round in which the exchange was open.
    round: u64,
}

impl Sampler {
    /// Begins to look. `open` lists the exchanges that began before a moment (ns, monotonic) and are still open.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(mut open: impl FnMut(u64) -> Vec<Served> + Send + 'static) -> std::io::Result<Self> {
        let kept = Arc::new(Mutex::new(HashMap::new()));
        let (end, ended) = mpsc::channel();
        let mut rounds = Rounds { kept: Arc::clone(&kept), ..Rounds::default() };
        std_thread::Builder::new().name("sampler".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                rounds.round(&open(monotonic_ns().saturating_sub(SLOW_NS)));
            }
        })?;
        Ok(Self { kept, _end: end })
    }

    /// Hands over what was learnt of an exchange that has ended. None if it was not slow.
    pub fn take(&self, nginx: &NginxEnd) -> Option<Activity> {
        let kept = lock(&self.kept).remove(&(nginx.sock, nginx.connect_ns))?;
        (kept.exchange == nginx.exchange).then_some(kept.activity)
    }
}

/// The state between two rounds.
#[derive(Debug, Default)]
struct Rounds {
    kept: Arc<Mutex<HashMap<Name, Kept>>>,
    /// What each thread had used at the last look.
    used: HashMap<i32, Used>,
    sockets: Sockets,
    round: u64,
}

impl Rounds {
    /// Looks at the workers of these exchanges once.
    fn round(&mut self, served: &[Served]) {
        self.round += 1;
        let looks = self.look_at(served);
        let mut kept = lock(&self.kept);
        for exchange in served {
            let look = looks.get(&exchange.tid);
            self.keep(&mut kept, exchange, look);
        }
        kept.retain(|_, kept| kept.round + KEPT_ROUNDS > self.round);
    }

    /// One look at each thread.
    fn look_at(&mut self, served: &[Served]) -> HashMap<i32, Look> {
        let (mut looks, mut used, mut tried) = (HashMap::new(), HashMap::new(), HashSet::new());
        self.sockets.begin_round();
        for served in in_order(served) {
            if looks.len() == MOST_THREADS || tried.len() == MOST_TRIED {
                break;
            }
            if tried.insert(served.tid)
                && let Some(look) =
                    look(served, self.used.get(&served.tid), &mut self.sockets, monotonic_ns())
            {
                used.insert(served.tid, look.used);
                looks.insert(served.tid, look);
            }
        }
        self.used = used;
        looks
    }

    fn keep(&self, kept: &mut HashMap<Name, Kept>, served: &Served, look: Option<&Look>) {
        let known = kept.get_mut(&served.name).filter(|known| known.exchange == served.exchange);
        match (known, look) {
            (Some(known), look) => {
                known.round = self.round;
                if let Some(Look { doing, used, has_other_threads }) = look {
                    known.activity.add(used.at_ns, doing.clone(), *has_other_threads);
                }
            }
            (None, Some(Look { doing, used, has_other_threads })) => {
                let activity = Activity::new(used.at_ns, doing.clone(), *has_other_threads);
                let new = Kept { exchange: served.exchange, activity, round: self.round };
                kept.insert(served.name, new);
            }
            (None, None) => {}
        }
    }
}

/// Those first that are the next to time out.
fn in_order(served: &[Served]) -> Vec<&Served> {
    let mut order: Vec<_> = served.iter().collect();
    order.sort_by_key(|served| (served.is_answered, served.since_ns));
    order
}

/// A round that panicked has left nothing half done that matters.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
