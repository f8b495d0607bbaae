//! Joins records into whole exchanges: an exchange that nginx closed unfinished waits for what nginx does next.
//! Pure: it reads no clock, the caller tells the time.

mod exchange;

use std::collections::{BTreeMap, HashMap};

use tracer_ebpf::{Action, Aftermath, nginx_flag};

pub use exchange::{Aftermaths, Joined};
pub(crate) use exchange::{address, comm, process};

use crate::decode::Record;

/// How long an exchange waits for what nginx does next, in ns. A worker that stays idle for so long had nothing to
/// tell a client, or told it in a way that no socket shows.
pub const PATIENCE_NS: u64 = 1_000_000_000;

/// Names a connection: nginx's socket and when it connected.
type Name = (u64, u64);

/// Exchanges that are not complete yet.
#[derive(Debug, Default)]
pub struct Ledger {
    waiting: HashMap<Name, Joined>,
    by_deadline: BTreeMap<(u64, Name), ()>,
}

impl Ledger {
    /// Takes in one record; gives back the exchange that it completes, if it completes one.
    pub fn take(&mut self, record: Record) -> Option<Joined> {
        match record {
            Record::Exchange(exchange) => {
                let joined = Joined::new(exchange.nginx, exchange.worker);
                if joined.nginx.flags & nginx_flag::AFTERMATH_FOLLOWS == 0 {
                    return Some(joined);
                }
                let name = joined.name();
                self.by_deadline.insert((joined.nginx.ended_ns + PATIENCE_NS, name), ());
                self.waiting.insert(name, joined);
                None
            }
            Record::Aftermath(aftermath, action) => self.complete(&aftermath, action),
            Record::WorkerGone(_) => None,
        }
    }

    fn complete(&mut self, aftermath: &Aftermath, action: Action) -> Option<Joined> {
        let name = (aftermath.sock, aftermath.connect_ns);
        let mut joined = self.waiting.remove(&name)?;
        self.by_deadline.remove(&(joined.nginx.ended_ns + PATIENCE_NS, name));
        joined.aftermath = Aftermaths::Seen { action, what: *aftermath };
        Some(joined)
    }

    /// Gives up waiting for what has not come by `now` (ns, monotonic): the oldest first.
    pub fn overdue(&mut self, now: u64) -> Vec<Joined> {
        let still_waiting = self.by_deadline.split_off(&(now, (0, 0)));
        let overdue = std::mem::replace(&mut self.by_deadline, still_waiting);
        overdue.into_keys().filter_map(|(_, name)| self.waiting.remove(&name)).collect()
    }

    /// Gives up waiting for anything: the oldest first.
    pub fn drain(&mut self) -> Vec<Joined> {
        self.overdue(u64::MAX)
    }

    /// When [`Ledger::overdue`] next has something (ns, monotonic).
    pub fn next_deadline(&self) -> Option<u64> {
        self.by_deadline.keys().next().map(|(deadline, _)| *deadline)
    }
}
