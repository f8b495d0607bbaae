//! A listener's accept queue, as it is emitted. Pure.

use std::sync::Arc;

use wire::accept_queue::Listener;

use crate::{
    model::{cgroup::Cgroup, from_wire::listens_at, upstream::Upstream, verdict::Process, waits::Waits},
    queues::Name,
};

/// What the listener asked for when it called listen, as far as the kernel's limit shows: the kernel keeps the smaller one of that
/// and somaxconn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Just that, for it is below somaxconn.
    Exactly(u32),
    /// That or more: it is somaxconn itself.
    AtLeast(u32),
    /// Nobody knows: somaxconn cannot be read in that network namespace.
    Unknown,
}

impl Asked {
    /// From the effective limit and the namespace's somaxconn.
    pub fn from(limit: u32, somaxconn: Option<u32>) -> Self {
        match somaxconn {
            None => Self::Unknown,
            Some(somaxconn) if limit == somaxconn => Self::AtLeast(limit),
            // Above it: somaxconn was larger when listen was called.
            Some(_) => Self::Exactly(limit),
        }
    }
}

/// A listener with its accept queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The kernel's address of it.
    pub sock: u64,
    /// When it was seen first (ns, monotonic).
    pub since_ns: u64,
    /// Where it listens.
    pub addr: Upstream,
    /// Its network namespace's inode number.
    pub netns: u32,
    /// Who owns it, if that could be found out.
    pub owner: Option<Process>,
    /// The owner's control group, if that is known.
    pub cgroup: Option<Arc<Cgroup>>,
    /// The backlog it asked for.
    pub asked: Asked,
    /// The effective backlog; one connection more than this fits.
    pub limit: u32,
    /// Connections that wait now.
    pub depth: u32,
    /// The most that have waited.
    pub max_depth: u32,
    /// Connections that entered the queue.
    pub arrived: u64,
    /// Connections that left it.
    pub accepted: u64,
    /// How long it was full, in ns.
    pub full_ns: u64,
    /// SYNs dropped at the full queue.
    pub syn_drops: u64,
    /// Ends of handshakes that met the full queue.
    pub ack_drops: u64,
    /// Unix connects that were refused at the full queue, or had to wait.
    pub unix_full: u64,
    /// How long connections waited; none if no wait was seen whole.
    pub waits: Option<Waits>,
    /// Whether an nginx has connected to it.
    pub by_nginx: bool,
}

impl Queue {
    /// What names it.
    pub(super) fn name(&self) -> Name {
        (self.sock, self.since_ns)
    }

    /// What the kernel side says of a listener at a moment (ns, monotonic).
    pub fn of(listener: &Listener, now_ns: u64, owner: Option<Process>, somaxconn: Option<u32>) -> Self {
        let full_now = match listener.full_since_ns {
            0 => 0,
            since => now_ns.saturating_sub(since),
        };
        Self {
            sock: listener.sock,
            since_ns: listener.since_ns,
            addr: listens_at(listener),
            netns: listener.netns,
            owner,
            cgroup: None,
            asked: Asked::from(listener.limit, somaxconn),
            limit: listener.limit,
            depth: listener.depth,
            max_depth: listener.max_depth,
            arrived: listener.arrivals,
            // Connections leave a live listener's queue by being accepted only.
            accepted: (u64::from(listener.first_depth) + listener.arrivals)
                .saturating_sub(listener.depth.into()),
            full_ns: listener.full_ns + full_now,
            syn_drops: listener.syn_drops,
            ack_drops: listener.ack_drops,
            unix_full: listener.unix_refused + listener.unix_waited,
            waits: Waits::of(&listener.waits, listener.longest_wait_ns),
            by_nginx: listener.by_nginx != 0,
        }
    }

    /// How many times a connection met the full queue, each retry counted.
    pub fn overflows(&self) -> u64 {
        self.syn_drops + self.ack_drops + self.unix_full
    }

    /// How many connections fit.
    pub fn fits(&self) -> u64 {
        u64::from(self.limit) + 1
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    #[test]
    fn accepted_is_what_came_and_is_no_longer_there() {
        let mut listener = Listener::new_zeroed();
        (listener.first_depth, listener.arrivals, listener.depth) = (2, 10, 3);
        (listener.full_ns, listener.full_since_ns) = (5, 100);
        let queue = Queue::of(&listener, 130, None, Some(4096));
        assert_eq!((queue.accepted, queue.full_ns), (9, 35));
    }

    #[test]
    fn a_limit_of_somaxconn_hides_what_was_asked_for() {
        assert_eq!(Asked::from(128, Some(4096)), Asked::Exactly(128));
        assert_eq!(Asked::from(4096, Some(4096)), Asked::AtLeast(4096));
        assert_eq!(Asked::from(128, None), Asked::Unknown);
    }
}
