//! nginx before nginx: the client of one is the other's end of an exchange, whose worker the one is.

use std::net::SocketAddr;

use wire::{Action, FAMILY_UNIX, Hop, NextAction};

use super::{Exchange, Name, Next, next_act::has_peer_left, remembered::Remembered};
use crate::model::{
    cause::Cause,
    from_wire::{address, path_of, process},
    upstream::Upstream,
    verdict::Process,
};

/// An exchange of another nginx, or of the same one, whose request nginx served by an exchange of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Names its connection.
    pub name: Name,
    /// The nginx worker that had asked.
    pub nginx: Process,
    /// Its own address; none on a unix socket.
    pub local: Option<SocketAddr>,
    /// Where it asked.
    pub upstream: Upstream,
}

/// One that is over.
#[derive(Debug)]
struct Ended {
    outer: Outer,
    began_ns: u64,
    ended_ns: u64,
    /// The thread that served it.
    thread: u32,
}

/// The exchanges that have ended and that another nginx may have served, by the socket by which it did.
#[derive(Debug, Default)]
pub(super) struct Hops {
    by_worker: Remembered<u64, Ended>,
    causes: Remembered<Name, Cause>,
}

/// Whether it may have been another nginx that served an exchange: it is called as the one that asked.
fn may_be_outer(joined: &Exchange) -> bool {
    joined.worker.is_some_and(|worker| worker.worker.comm == joined.nginx.nginx.comm)
}

impl Hops {
    /// An exchange has ended.
    pub(super) fn ended(&mut self, joined: &Exchange) {
        if let Some(worker) = joined.worker.filter(|_| may_be_outer(joined)) {
            let outer = Outer {
                name: joined.name(),
                nginx: process(&joined.nginx.nginx),
                local: joined.local(),
                upstream: joined.upstream(),
            };
            let (began_ns, ended_ns) = (joined.began_ns(), joined.nginx.ended_ns);
            let thread = worker.worker.tid;
            self.by_worker.put(worker.sock, Ended { outer, began_ns, ended_ns, thread });
        }
    }

    /// What it came to.
    pub(super) fn judged(&mut self, joined: &Exchange, cause: Cause) {
        if may_be_outer(joined) {
            self.causes.put(joined.name(), cause);
        }
    }

    pub(super) fn cause_of(&self, outer: &Outer) -> Option<Cause> {
        self.causes.get(&outer.name).copied()
    }

    /// Whose request an exchange served: its client is the other end of an exchange or, where its client is not known, what nginx did next it
    /// did for it. Nobody's where that is not sure.
    pub(super) fn outer(&self, joined: &Exchange, hop: Option<&Hop>) -> Option<Outer> {
        if joined.knows_client() {
            return match hop {
                Some(hop) => was_asked_before(joined, hop).then(|| Outer::of(hop)),
                None => self.of_client(joined),
            };
        }
        let Next::Seen { action, what } = &joined.next_action else { return None };
        // A new turn of nginx's loop may be somebody else's.
        if what.turned_to != 0 || *action == Action::Connected {
            return None;
        }
        match hop {
            Some(hop) => is_its_client(joined, *action, what, hop).then(|| Outer::of(hop)),
            None => self.left(joined, *action, what),
        }
    }

    /// The exchange that was over before, and whose worker's end the client was as this exchange began.
    fn of_client(&self, joined: &Exchange) -> Option<Outer> {
        let Ended { outer, began_ns, ended_ns, thread } = self.by_worker.get(&joined.nginx.client.sock)?;
        let was_open =
            (*began_ns..=*ended_ns).contains(&joined.began_ns()) && *ended_ns <= joined.nginx.ended_ns;
        let is_its = *thread == joined.nginx.nginx.tid && outer.local == joined.client();
        (was_open && is_its).then(|| outer.clone())
    }

    /// The same of one that was over before.
    fn left(&self, joined: &Exchange, action: Action, what: &NextAction) -> Option<Outer> {
        let Ended { outer, began_ns: _, ended_ns, thread } = self.by_worker.get(&what.other_sock)?;
        let is_the_one = *ended_ns <= what.ns
            && *thread == joined.nginx.nginx.tid
            && outer.local.is_none_or(|local| local == address(&what.peer));
        // Its end has come there, but for a unix socket's, which has no states.
        let has_left = action == Action::Closed && has_peer_left(what);
        (is_the_one && has_left).then(|| outer.clone())
    }
}

impl Outer {
    fn of(hop: &Hop) -> Self {
        let is_unix = hop.upstream.family == FAMILY_UNIX;
        Self {
            name: (hop.outer_sock, hop.outer_connect_ns),
            nginx: process(&hop.nginx),
            local: (!is_unix && hop.local.port != 0).then(|| address(&hop.local)),
            upstream: if is_unix {
                Upstream::Unix(path_of(&hop.path))
            } else {
                Upstream::Inet(address(&hop.upstream))
            },
        }
    }
}

/// Whether an exchange that was open as this one ended had begun before it: a later one on the same connection is for another request.
fn was_asked_before(joined: &Exchange, hop: &Hop) -> bool {
    hop.asked_ns != 0 && hop.asked_ns <= joined.began_ns()
}

/// Whether the exchange that was open then is the one that this exchange was made for. What ends in the background (a mirror's, a cache's
/// update) is followed by no act of its own: then nginx may go on with any other client, in the middle of an answer or idle.
fn is_its_client(joined: &Exchange, action: Action, what: &NextAction, hop: &Hop) -> bool {
    let was_unanswered = hop.answered_ns == 0 || hop.answered_ns >= what.closed_ns;
    let has_response = joined.arrived() > 0;
    was_asked_before(joined, hop)
        && match action {
            Action::Sent => was_unanswered || has_response,
            Action::Closed | Action::ShutDown => has_peer_left(what) || has_response,
            Action::Connected => false,
        }
}
