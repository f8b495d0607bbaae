//! Accept queues and who met them full, as the hooks of `why502 backlog` see them: what that command, `top` and `serve` share.

mod decode;
mod owners;
mod victim;

use std::collections::HashSet;

use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use wire::{
    FAMILY_UNIX,
    accept_queue::{Listener, RING_BYTES, Stats},
};

use crate::{
    load::{Backlog, Clients, Symbols},
    model::{clock::monotonic_ns, failure::Failure, hook_kind::HookKind},
};
pub(crate) use decode::{Record, decode};
pub(crate) use owners::{Holder, Owners};
pub use victim::{Outcome, Overflow, Stage};
pub(crate) use victim::{at_the_end, judged};

/// A listener's name: its address in the kernel is used again, the moment it was seen first (ns, monotonic) is not.
pub(crate) type Name = (u64, u64);

/// What names a listener.
pub(crate) fn name(listener: &Listener) -> Name {
    (listener.sock, listener.since_ns)
}

/// Whether it listens on a unix socket.
pub(crate) fn is_unix(listener: &Listener) -> bool {
    listener.local.family == FAMILY_UNIX
}

/// Whether nginx was seen to connect to it.
fn is_nginxs(listener: &Listener) -> bool {
    listener.by_nginx != 0
}

/// The hooks, for whoever looks at listeners now and then, for as long as he likes. Dropping it detaches them.
pub struct Queues {
    backlog: Backlog,
    ring: RingBuf<MapData>,
    owners: Owners,
}

/// What there is to be seen at one moment, of the listeners that nginx was seen to connect to.
#[derive(Clone, Debug)]
pub struct Look {
    /// The listeners.
    pub open: Vec<Listener>,
    /// Those that were closed since the last look, each as it was at its end; one that was closed a moment ago may be among the open ones as
    /// well.
    pub closed: Vec<Listener>,
    /// The kernel side's counters.
    pub stats: Stats,
}

impl Queues {
    /// Attaches the hooks, for the listeners that these connect to.
    ///
    /// # Errors
    /// As [`Backlog::start`].
    pub fn attach(symbols: Symbols, clients: Clients, only: &[HookKind]) -> Result<Self, Failure> {
        let mut backlog = Backlog::start(symbols, clients, only)?;
        let ring = backlog.take_ring()?;
        // So the kernel side learns of the listeners that were there before it.
        let owners = Owners::of_all(&mut backlog);
        Ok(Self { backlog, ring, owners })
    }

    /// Looks, and makes room for what comes: of those that have gone, and of victims whose fate is known.
    ///
    /// # Errors
    /// If the kernel refuses to show its counters.
    pub fn look(&mut self) -> Result<Look, Failure> {
        let mut open = self.backlog.listeners();
        let mut closed = self.owners.bury(&open, &mut self.backlog);
        let mut names: HashSet<Name> = closed.iter().map(name).collect();
        open.retain(|listener| !names.contains(&name(listener)));
        self.owners.follow(&open, &mut self.backlog);
        let now = monotonic_ns();
        for (key, victim) in self.backlog.victims() {
            if judged(&victim, now).is_some() {
                // Who met a full queue is not emitted here, only how often.
                let _was_open = self.backlog.forget(&key);
            }
        }
        // All that was there before this look began is in no more bytes than these.
        let mut taken = 0;
        while taken < RING_BYTES as usize {
            let Some(bytes) = self.ring.next().map(|record| Bytes::copy_from_slice(&record)) else { break };
            taken += bytes.len();
            match decode(&bytes) {
                // The kernel side may have emitted the end of one that was buried.
                Ok(Record::Closed(listener)) if names.insert(name(&listener)) => closed.push(*listener),
                Ok(Record::Closed(_) | Record::Ended(_)) => {}
                Err(error) => crate::notice!("a record was passed over: {error}"),
            }
        }
        // From then on each counts in whole, with what came before: others in other network namespaces listen at the same addresses.
        open.retain(is_nginxs);
        closed.retain(is_nginxs);
        Ok(Look { open, closed, stats: self.backlog.stats()? })
    }
}
