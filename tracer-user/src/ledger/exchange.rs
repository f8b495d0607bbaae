//! A whole exchange, and what can be read from it directly.

use std::{net::SocketAddr, path::PathBuf};

use wire::{
    Action, DropReason, ExchangeRecord, FAMILY_UNIX, ListenerView, NextAction, NginxEnd, Stops, WorkerEnd,
    nginx_flag, tcp_state,
};

use super::{Outer, Said};
use crate::{
    model::{
        from_wire::{address, path_of},
        inquiry::{Denial, Found, Place, Queue, Sharer},
        near::Near,
        upstream::Upstream,
        verdict::{Alike, Process},
    },
    sample::Activity,
};

/// What nginx did right after it closed the exchange.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// The question does not arise: it was not nginx that ended the exchange.
    NotAwaited,
    /// Nothing was seen in time.
    NotSeen,
    /// This.
    Seen {
        /// In one word.
        action: Action,
        /// In full.
        what: NextAction,
    },
}

/// One exchange with everything that was learnt of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// nginx's end.
    pub nginx: NginxEnd,
    /// The worker's end, if it was seen on this host.
    pub worker: Option<WorkerEnd>,
    /// Who had told the worker to stop before its end ended.
    pub stops: Stops,
    /// The unix socket's path, if it is one.
    pub path: Option<PathBuf>,
    /// What nginx did next.
    pub next_action: Next,
    /// Names the downstream request, where nginx is known to have tried several upstreams for it.
    pub request: Option<u64>,
    /// The client's connection, as nginx numbers it, of the exchange that this one is taken to retry.
    pub(super) retried_for: Option<u64>,
    /// What the worker was found doing, if the exchange was slow enough to be looked at.
    pub activity: Option<Activity>,
    /// How the idle time of its connection compares with that of others that the upstream closed under a request.
    pub alike: Option<Alike>,
    /// Until when an earlier exchange is known to have had a connection to its upstream, where this one had none (ns, monotonic).
    pub reached_ns: Option<u64>,
    /// Who listens near its upstream, where nobody does.
    pub near: Option<Near>,
    /// What nginx said of it, in order: the last word is the one before it closed.
    pub said: Vec<Said>,
    /// The exchange of another nginx, or of the same, whose request it served, if that is sure.
    pub outer: Option<Outer>,
    /// What was looked up about it.
    pub found: Option<Found>,
}

impl Exchange {
    pub(crate) fn new(record: &ExchangeRecord) -> Self {
        let ExchangeRecord { header: _, nginx, worker, stops, path, reserved: _ } = *record;
        let awaited = nginx.flags & nginx_flag::NEXT_ACTION_FOLLOWS != 0;
        Self {
            nginx,
            worker: (worker.sock != 0).then_some(worker),
            stops,
            path: (nginx.upstream.family == FAMILY_UNIX).then(|| path_of(&path)),
            request: None,
            retried_for: None,
            next_action: if awaited { Next::NotSeen } else { Next::NotAwaited },
            activity: None,
            alike: None,
            reached_ns: None,
            near: None,
            said: Vec::new(),
            outer: None,
            found: None,
        }
    }

    /// Names the connection.
    pub fn name(&self) -> super::Name {
        (self.nginx.sock, self.nginx.connect_ns)
    }

    /// Whether all of [`nginx_flag`] bits `flags` are set.
    pub fn has(&self, flags: u32) -> bool {
        self.nginx.flags & flags == flags
    }

    /// Whether nginx only passed on what came, both ways: what it said and what it did ends with either side, and a status is none of it.
    pub fn is_passed_through(&self) -> bool {
        self.has(nginx_flag::UPGRADED) || self.has(nginx_flag::STREAM) && self.is_connected()
    }

    /// Whether nginx made it for a request that it passes on.
    pub fn has_request(&self) -> bool {
        self.nginx.flags & (nginx_flag::UPGRADED | nginx_flag::STREAM | nginx_flag::OF_MODULE) == 0
    }

    /// nginx's word on it, if that was heard: the last one before it closed.
    pub fn word(&self) -> Option<&Said> {
        self.said.last()
    }

    /// Takes back that it retries another exchange, if nginx says that this one is for another client.
    pub(super) fn check_retry(&mut self) {
        if let (Some(client), Some(said)) = (self.retried_for.take(), self.word())
            && client != said.connection
        {
            self.request = None;
        }
    }

    /// Whether nginx closed it and said nothing, though that would have been heard.
    pub fn is_silent(&self) -> bool {
        let next = match self.next_action {
            Next::Seen { what, .. } => what.word_ns,
            Next::NotAwaited | Next::NotSeen => 0,
        };
        // A word that was lost on its way was said all the same, and of an end that came late it may be another's by now.
        self.has(nginx_flag::WORD_AUDIBLE)
            && !self.has(nginx_flag::CLOSED_LATE)
            && self.said.is_empty()
            && self.nginx.word_ns == 0
            && next == 0
    }

    /// What was found to stand between nginx and the upstream.
    pub fn denial(&self) -> Option<&Denial> {
        match &self.found {
            Some(Found::Denial(denial)) => Some(denial),
            _ => self.said.iter().find_map(Said::denial),
        }
    }

    /// What was found at a unix upstream's path.
    pub fn place(&self) -> Option<&Place> {
        match &self.found {
            Some(Found::Place(place)) => Some(place),
            _ => self.said.iter().find_map(Said::place),
        }
    }

    /// When a connection with its upstream's address was last known to work, as the kernel remembers it (ns, monotonic), if that was looked up.
    pub fn worked_ns(&self) -> Option<u64> {
        match &self.found {
            Some(Found::Reached(ns)) => Some(*ns),
            _ => self.said.iter().find_map(Said::reached_ns),
        }
    }

    /// Whether the folder of a unix upstream's path that is not there is, if that was looked up.
    pub fn has_folder(&self) -> Option<bool> {
        match &self.found {
            Some(Found::Missing { has_folder }) => Some(*has_folder),
            _ => self.said.iter().find_map(Said::has_folder),
        }
    }

    /// The listeners that share the upstream's address, if they were looked up.
    pub fn sharers(&self) -> &[Sharer] {
        match &self.found {
            Some(Found::Sharers(sharers)) => sharers,
            _ => &[],
        }
    }

    /// Who should work off the queue of the upstream's listener, if that was looked up.
    pub fn queue(&self) -> Option<&Queue> {
        match &self.found {
            Some(Found::Queue(queue)) => Some(queue),
            _ => None,
        }
    }

    /// Who held its connection when nginx stopped waiting, if that was looked up.
    pub fn holders(&self) -> Option<&[Process]> {
        match &self.found {
            Some(Found::Holders(holders)) => Some(holders),
            _ => None,
        }
    }

    /// After how long php-fpm cuts off a request of the worker's pool (s), zero for never, if that was looked up and found.
    pub fn terminate_after_s(&self) -> Option<u64> {
        match &self.found {
            Some(Found::TerminateAfter(seconds)) => *seconds,
            _ => None,
        }
    }

    /// Whether nginx's word on it begins so; its conversions are nginx's own.
    pub fn nginx_says(&self, beginning: &str) -> bool {
        self.said.iter().any(|said| said.message().starts_with(beginning))
    }

    /// Whether nginx says that it has waited for long enough.
    pub fn timer_went_off(&self) -> bool {
        self.said.iter().any(Said::is_of_timer)
    }

    /// Whether the handshake was over on nginx's side.
    pub fn is_connected(&self) -> bool {
        self.nginx.established_ns != 0
    }

    /// Whether it ended while nginx was still connecting.
    pub fn was_connecting(&self) -> bool {
        self.nginx.old_state == tcp_state::SYN_SENT
    }

    /// Whether connect itself returned the error: on a unix socket always, on TCP before a SYN was sent.
    pub fn failed_at_once(&self) -> bool {
        self.was_connecting() && (self.path.is_some() || self.has_no_local_port())
    }

    /// Whether nginx's socket never got a local port.
    pub fn has_no_local_port(&self) -> bool {
        self.path.is_none() && self.nginx.local.port == 0
    }

    /// Why this host dropped packets of the handshake, if it did.
    pub fn dropped(&self) -> Option<DropReason> {
        self.nginx.dropped.why()
    }

    /// Why this host dropped packets of the handshake before they reached a listener, if it did.
    pub fn dropped_on_the_way(&self) -> Option<DropReason> {
        use DropReason::{AcceptQueueFull, ListenOverflow, NeighbourFailed};
        self.dropped().filter(|reason| !matches!(reason, ListenOverflow | AcceptQueueFull | NeighbourFailed))
    }

    /// Whether the listener itself dropped at least as many packets meanwhile as nginx sent SYNs: a full queue's drops are
    /// counted (`tcp_listendrop` in tcp_conn_request). The last SYN may still be on its way.
    pub fn listener_dropped_syns(&self) -> bool {
        let (first, last) = (&self.nginx.listener_first, &self.nginx.listener_last);
        let drops = last.drops.wrapping_sub(first.drops);
        first.sock != 0 && first.sock == last.sock && drops >= self.nginx.syn_retransmits.max(1)
    }

    /// Whether the listener that was looked at need not be the one that nginx's SYN met: several share the address, or it was
    /// found in another network namespace or behind address translation.
    pub fn listener_may_be_another(&self) -> bool {
        self.listener().is_some_and(|view| view.shared > 1 || view.elsewhere != 0)
    }

    /// Whether nginx ended it of its own accord: no error, and the peer had not closed before.
    pub fn nginx_closed_first(&self) -> bool {
        self.nginx.error == 0 && self.nginx.old_state != tcp_state::CLOSE_WAIT
    }

    /// Bytes of this exchange's response that arrived at nginx's end, read or not. The FIN, which the kernel counts as a byte until it
    /// is read, is taken out.
    pub fn arrived(&self) -> u64 {
        let has_fin = self.nginx.old_state == tcp_state::CLOSE_WAIT && !self.has(nginx_flag::END_READ);
        self.nginx.received + u64::from(self.nginx.unread).saturating_sub(u64::from(has_fin))
    }

    /// Whether a worker had the connection: it read from it, or its socket had been handed out.
    pub fn was_accepted(&self) -> bool {
        self.worker.is_some_and(|worker| worker.accepted_ns != 0 || worker.has_socket != 0)
    }

    /// Bytes nginx sent that the worker never read, the FIN taken out.
    pub fn unread_by_worker(&self) -> Option<u64> {
        // The kernel keeps no such count for unix sockets.
        let worker = self.worker.as_ref().filter(|_| self.path.is_none())?;
        let fin = u32::from(matches!(worker.old_state, tcp_state::CLOSE_WAIT | tcp_state::LAST_ACK));
        Some(u64::from(worker.unread.saturating_sub(fin)))
    }

    /// Whether the peer's kernel acknowledged none of the request's bytes: its worker cannot have had them. Never where nothing was sent, nor of
    /// unix sockets, for which the kernel keeps no such count.
    pub fn is_unacknowledged(&self) -> bool {
        self.path.is_none() && self.nginx.sent > 0 && u64::from(self.nginx.unacked) >= self.nginx.sent
    }

    /// Whether the worker's end was over before any of the request came to it. The moments alone do not tell: that of nginx's send is taken when
    /// the call is over (`sock_send_length`), and by then a worker may have read what was sent and closed.
    pub fn worker_ended_before_request(&self) -> bool {
        let ended_ns = self.worker.as_ref().map_or(0, |worker| worker.ended_ns);
        ended_ns != 0 && ended_ns <= self.nginx.first_sent_ns && self.is_unacknowledged()
    }

    /// Where it went.
    pub fn upstream(&self) -> Upstream {
        match &self.path {
            Some(path) => Upstream::Unix(path.clone()),
            None => Upstream::Inet(address(&self.nginx.upstream)),
        }
    }

    /// nginx's own address, once it had a port.
    pub fn local(&self) -> Option<SocketAddr> {
        (self.path.is_none() && self.nginx.local.port != 0).then(|| address(&self.nginx.local))
    }

    /// Whether the upstream's address is nginx's own, so that both ends are on one host.
    pub fn is_to_own_address(&self) -> bool {
        self.local().is_some_and(|local| {
            let upstream = address(&self.nginx.upstream);
            local.ip() == upstream.ip() || upstream.ip().is_loopback()
        })
    }

    /// The last look at the listener's queue that found a listener.
    pub fn listener(&self) -> Option<&ListenerView> {
        [&self.nginx.listener_last, &self.nginx.listener_first].into_iter().find(|view| view.sock != 0)
    }

    /// Whether its connection was kept from an earlier exchange.
    pub fn is_on_kept_connection(&self) -> bool {
        self.nginx.exchange > 1
    }

    /// How long its connection had been idle when its request was sent, in ns; none of a connection's first exchange.
    pub fn idle_ns(&self) -> Option<u64> {
        let Self { nginx, .. } = self;
        (nginx.idle_since_ns != 0 && nginx.first_sent_ns != 0)
            .then(|| nginx.first_sent_ns.saturating_sub(nginx.idle_since_ns))
    }

    /// The same when the upstream closed it, as far as that is seen: how long its own timer ran.
    pub fn idle_at_close_ns(&self) -> Option<u64> {
        let idle_ns = self.idle_ns()?;
        Some(match &self.worker {
            Some(worker) if worker.ended_ns != 0 => worker.ended_ns.saturating_sub(self.nginx.idle_since_ns),
            _ => idle_ns,
        })
    }

    /// When it began: with connect, or on a kept connection with the first byte sent.
    pub fn began_ns(&self) -> u64 {
        if self.is_on_kept_connection() && self.nginx.first_sent_ns != 0 {
            self.nginx.first_sent_ns
        } else {
            self.nginx.connect_ns
        }
    }

    /// A moment in microseconds since it began; none for what did not happen, or not in this exchange but before it on the same
    /// connection.
    pub fn us(&self, ns: u64) -> Option<i64> {
        let is_earlier = self.is_on_kept_connection() && ns < self.began_ns();
        (ns != 0 && !is_earlier).then(|| since(self.began_ns(), ns))
    }

    /// How long it lasted in ns, to the end of nginx's socket.
    pub fn lasted_ns(&self) -> u64 {
        self.nginx.ended_ns.saturating_sub(self.began_ns())
    }
}

/// Microseconds from `start` to `end`, both in ns.
fn since(start: u64, end: u64) -> i64 {
    (end as i64 - start as i64) / 1_000
}
