//! The facts under a verdict, in the order of time.

use std::fmt::Display;

use wire::{Action, DropReason, FAMILY_INET, FAMILY_INET6, NginxEnd, WorkerEnd, nginx_flag, tcp_state};

use super::{errors, gone, lost, reached::Reached, signals, stopped};
use crate::{
    ledger::{Exchange, Next},
    model::{
        facts::{Fact, Sources},
        from_wire::{address, comm},
        inquiry::{Holder, Sharer},
        near::Closed,
        verdict::{Evidence, Process},
        words::{count, span, times},
    },
};

/// Every fact that the records of this exchange hold, and when its upstream was last reached.
pub(super) fn of(exchange: &Exchange, reached: Option<Reached>, sources: &Sources) -> Vec<Evidence> {
    let mut facts = Facts { exchange, sources, facts: Vec::new() };
    facts.nginx_end(&exchange.nginx);
    if let Some(worker) = &exchange.worker {
        facts.worker_end(worker);
        if let Some(activity) = &exchange.activity {
            let who = signals::worker_in_words(worker);
            facts.add_from(
                activity.last_ns(),
                "/proc sampling",
                format_args!("the {who} {}", activity.figures()),
            );
        }
    }
    for said in &exchange.said {
        // A line's moment is known to the second: it came before nginx closed.
        let ns = if said.is_logged() { exchange.nginx.ended_ns } else { said.ns };
        facts.add_from(
            ns,
            super::source(said),
            format_args!("nginx says: {}", super::nginx_says::line(said)),
        );
    }
    if let Some(near) = &exchange.near {
        let found = match near.neighbours.len() as u64 + u64::from(near.others) {
            0 => "nobody listens".to_owned(),
            1 => "one process listens".to_owned(),
            more => format!("{more} sockets listen"),
        };
        let what = if exchange.path.is_some() { "under this name" } else { "on this port" };
        facts.add_from(near.ns, "iter/task_file", format_args!("{found} {what} on this host"));
        if let Some(Closed { process: Process { pid, comm }, ns, again_ns, .. }) = &near.closed {
            facts.add(*ns, facts.changes(), format_args!("{comm} {pid} closes its listener there"));
            let again = again_ns.unwrap_or(0);
            facts.add(again, facts.changes(), "somebody listens there again");
        }
    }
    facts.facts.extend(reached.map(|reached| reached.evidence(exchange.began_ns())));
    facts.next_action();
    facts.facts.sort_by_key(|fact| fact.us);
    facts.facts
}

struct Facts<'a> {
    exchange: &'a Exchange,
    sources: &'a Sources,
    facts: Vec<Evidence>,
}

impl Facts<'_> {
    fn add(&mut self, ns: u64, seen: Fact, fact: impl Display) {
        self.add_from(ns, self.sources.name(seen), fact);
    }

    /// A fact is put into words only if it was seen.
    fn add_from(&mut self, ns: u64, source: &str, fact: impl Display) {
        if let Some(us) = self.exchange.us(ns) {
            self.facts.push(Evidence { us, source: source.to_owned(), fact: fact.to_string() });
        }
    }

    /// What sees this exchange's sockets come and go.
    fn changes(&self) -> Fact {
        if self.exchange.path.is_some() { Fact::UnixSockets } else { Fact::States }
    }

    fn nginx_end(&mut self, nginx: &NginxEnd) {
        let upstream = self.exchange.upstream();
        let who = format!("{} {}", comm(&nginx.nginx), nginx.nginx.tgid);
        self.add(nginx.connect_ns, self.changes(), format_args!("{who} connects to {upstream}"));
        for view in [&nginx.listener_first, &nginx.listener_last] {
            if view.sock != 0 {
                let full = if view.depth > view.limit { ", full" } else { "" };
                let unfinished = match view.syn_queue {
                    0 => String::new(),
                    syns => format!("; {} not over", count(u64::from(syns), "handshake")),
                };
                let dropped = match view.drops {
                    0 => String::new(),
                    drops => format!("; {} since it listens", count(u64::from(drops), "drop")),
                };
                self.add_from(
                    view.ns,
                    "the listener's own count",
                    format_args!(
                        "accept queue of {upstream}: depth {}, backlog {}{full}{unfinished}{dropped}",
                        view.depth, view.limit,
                    ),
                );
            }
        }
        if nginx.syn_retransmits > 0 {
            self.add(
                nginx.ended_ns,
                Fact::Retransmits,
                format_args!("the SYN was sent again {}", times(u64::from(nginx.syn_retransmits))),
            );
        }
        self.add(nginx.established_ns, self.changes(), "the handshake is over on nginx's side");
        let idle = match self.exchange.idle_ns() {
            Some(ns) => format!(", after its connection was idle for {}", span(ns)),
            None => String::new(),
        };
        self.add(nginx.first_sent_ns, Fact::Sends, format_args!("nginx begins to send the request{idle}"));
        self.add(nginx.first_received_ns, Fact::Receives, "nginx begins to read the response");
        if nginx.reset.ns != 0 {
            // The packet that ends the handshake and the request's first one begin with the same number.
            let what = if nginx.established_ns == 0 {
                "the SYN"
            } else if nginx.first_sent_ns != 0
                && nginx.first_sent_ns < nginx.reset.ns
                && nginx.reset.by_listener == 0
            {
                "the request"
            } else {
                "the packet that ends the handshake"
            };
            let why = if nginx.reset.without_socket != 0 {
                "no socket takes it"
            } else if nginx.reset.by_listener != 0 {
                "the listener makes no socket for it"
            } else {
                "its socket refuses it"
            };
            self.add(
                nginx.reset.ns,
                Fact::ResetsSent,
                format_args!("this host answers {what} with a reset: {why}"),
            );
        }
        if let Some(reason) = self.exchange.dropped() {
            let by_function = self.sources.has(Fact::HandshakeDrops);
            let (seen, reason) = match reason {
                DropReason::ListenOverflow if by_function => {
                    (Fact::HandshakeDrops, "the accept queue was full")
                }
                DropReason::AcceptQueueFull => (Fact::SynDrops, "the accept queue was full"),
                named => (Fact::PacketDrops, named.kernel_name()),
            };
            let packets = count(u64::from(nginx.dropped.packets), "packet");
            self.add(
                nginx.dropped.ns,
                seen,
                format_args!(
                    "this host dropped {packets} of the connection's beginning, the last one now: {reason}"
                ),
            );
        }
        self.lost(nginx);
        if nginx.icmp.ns != 0 {
            let version = if nginx.icmp.is_v6 != 0 { "ICMPv6" } else { "ICMP" };
            let what = errors::icmp(&nginx.icmp);
            self.add(
                nginx.icmp.ns,
                Fact::Icmp,
                format_args!(
                    "{version} answers the SYN: {what} (type {}, code {})",
                    nginx.icmp.kind, nginx.icmp.code
                ),
            );
        }
        if let Some(fact) = self.given_last() {
            self.add(nginx.ended_ns, Fact::Receives, fact);
        }
        self.add(nginx.ended_ns, self.changes(), self.ending(nginx));
        for (flag, ns, what) in [
            (nginx_flag::STREAM, nginx.connect_ns, "nginx connects for a session of stream {}"),
            (nginx_flag::OF_MODULE, nginx.connect_ns, "a module of nginx's connects for itself"),
            (nginx_flag::UPGRADED, nginx.ended_ns, "nginx was proxying an upgraded connection"),
            (nginx_flag::REQUEST_UNDER_WAY, nginx.ended_ns, "nginx had not read all of the request's body"),
            (nginx_flag::CLIENT_ENDED, nginx.ended_ns, "to nginx, the client's connection is over"),
            (
                nginx_flag::UNTIMED,
                nginx.ended_ns,
                "no timer of nginx's for this exchange or its client has gone off",
            ),
            (
                nginx_flag::BODY_TIMED,
                nginx.ended_ns,
                "nginx's timer for what the client was to send has gone off",
            ),
        ] {
            if self.exchange.has(flag) {
                self.add_from(ns, "nginx's memory", what);
            }
        }
    }

    /// What became of packets of a connection that was made.
    fn lost(&mut self, nginx: &NginxEnd) {
        if nginx.refused_ns != 0 {
            let fact = "this host answers the upstream's next packet with a reset: no socket takes it";
            self.add(nginx.refused_ns, Fact::ResetsSent, fact);
        }
        // The kernel sends from within nginx's call, which counts from its return on.
        let sent_ns = match lost::rejected(self.exchange) {
            Some(_) => nginx.lost_out.ns.max(self.exchange.began_ns()),
            None => nginx.lost_out.ns,
        };
        for (lost, ns, what) in [
            (&nginx.lost_in, nginx.lost_in.ns, "that nginx's socket waited for next"),
            (&nginx.lost_out, sent_ns, "of what nginx sent and nobody acknowledged"),
        ] {
            if let Some(reason) = lost.why().filter(|_| lost.ns != nginx.dropped.ns) {
                let packets = count(u64::from(lost.packets), "packet");
                let reason = reason.kernel_name();
                let fact = format!("this host dropped {packets} {what}, the last one now: {reason}");
                self.add(ns, Fact::PacketDrops, fact);
            }
        }
        if nginx.gap > 0 {
            let fact = format!(
                "nginx's socket holds bytes behind others that did not come: {} from the first missing one to the last",
                nginx.gap
            );
            self.add_from(nginx.ended_ns, "the socket's own queue", fact);
        }
    }

    /// What nginx's thread was given last before it closed the exchange, and how its client was.
    fn given_last(&self) -> Option<String> {
        let read = [
            (nginx_flag::UPSTREAM_READ, "nginx read from the upstream last"),
            (nginx_flag::CLIENT_READ, "nginx read from its client last"),
            (nginx_flag::OTHER_READ, "nginx read from neither the upstream nor its client last"),
            (nginx_flag::NOTHING_READ, "nginx woke with nothing to read"),
        ];
        let (_, read) = read.into_iter().find(|(flag, _)| self.exchange.has(*flag))?;
        let client = match self.exchange.nginx.client.state {
            tcp_state::ESTABLISHED if self.exchange.has(nginx_flag::CLIENT_BLOCKED) => {
                ", who is connected and whose socket is full"
            }
            tcp_state::ESTABLISHED => ", who is connected",
            tcp_state::CLOSE_WAIT => ", who had closed",
            tcp_state::CLOSE => ", who had reset the connection",
            _ => return Some(read.to_owned()),
        };
        let name = self.exchange.client().map_or_else(String::new, |client| format!(" {client}"));
        Some(format!("{read}; its client is{name}{client}"))
    }

    fn ending(&self, nginx: &NginxEnd) -> String {
        let sent = count(nginx.sent, "byte");
        let how = match nginx.error {
            0 if nginx.old_state == tcp_state::CLOSE_WAIT => {
                "nginx closes, the upstream had closed before".to_owned()
            }
            0 => "nginx closes first".to_owned(),
            error => format!("the connection ends with {}", errors::name(error)),
        };
        format!("{how}; sent {sent}, read {}", count(nginx.received, "byte"))
    }

    fn worker_end(&mut self, worker: &WorkerEnd) {
        self.add(worker.created_ns, self.changes(), "the listener's kernel queues the connection for accept");
        if worker.accepted_ns != 0 {
            let who = format!("{} {}", comm(&worker.worker), worker.worker.tgid);
            if self.sources.has(Fact::Accepts) {
                self.add(worker.accepted_ns, Fact::Accepts, format_args!("{who} accepts it"));
            } else {
                self.add(worker.accepted_ns, Fact::Receives, format_args!("{who} reads from it first"));
            }
        }
        if worker.signal.ns != 0 && worker.exiting != 0 {
            let signal = signals::name(worker.signal.number);
            let victim = worker.closer.tgid;
            let fact = match (signals::killer(worker), signals::sender_in_words(worker)) {
                (Some(killer), _) => format!("{} {} sent {signal} to {victim}", killer.comm, killer.pid),
                (None, Some(sender)) => {
                    format!("{victim} is sent {signal} by {}", sender.trim_end_matches(','))
                }
                (None, None) => format!("{victim} is sent {signal}"),
            };
            self.add(worker.signal.ns, Fact::Signals, fact);
        }
        self.stops(worker);
        self.gone(worker);
        let fact = match worker.error {
            0 => {
                let who = match worker.closer.tgid {
                    // Not seen on this kernel.
                    0 => "somebody".to_owned(),
                    closer => format!("{} {closer}", comm(&worker.closer)),
                };
                let dying = match (worker.exiting, signals::died_of(worker)) {
                    (0, _) => String::new(),
                    (_, Some(signal)) => format!(", dying of {}", signals::name(signal)),
                    (_, None) => ", exiting".to_owned(),
                };
                let unread = self.exchange.unread_by_worker().unwrap_or_default();
                format!("{who}{dying}, closes the worker's end with {} unread", count(unread, "byte"))
            }
            error => format!("the worker's end ends with {}", errors::name(error)),
        };
        let began_ns = self.exchange.began_ns();
        if worker.ended_ns != 0 && worker.ended_ns < began_ns {
            let before = span(began_ns - worker.ended_ns);
            self.add(began_ns, self.changes(), format_args!("{before} before, {fact}"));
        } else {
            self.add(worker.ended_ns, self.changes(), fact);
        }
    }

    /// How the worker ended whose connection others held on, and who they are.
    fn gone(&mut self, worker: &WorkerEnd) {
        let Some(dead) = gone::of(self.exchange) else { return self.holders() };
        let (who, pid) = (comm(&worker.worker), worker.worker.tgid);
        if dead.signal.ns != 0
            && let Some(sender) = signals::sender_in_words(&dead)
        {
            let signal = signals::name(dead.signal.number);
            self.add(
                dead.signal.ns,
                Fact::Signals,
                format_args!("{pid} is sent {signal} by {}", sender.trim_end_matches(',')),
            );
        }
        let how = match signals::died_of(&dead) {
            Some(signal) => format!("of {}", signals::name(signal)),
            None => "by an exit".to_owned(),
        };
        self.add(
            self.exchange.stops.gone.ns,
            Fact::Deaths,
            format_args!("{who} {pid} ends {how}; its connection stays open"),
        );
        self.holders();
    }

    /// Who else had to do with the connection, as the open files of processes show.
    fn holders(&mut self) {
        let ended_ns = self.exchange.nginx.ended_ns;
        for Sharer { process: Process { pid, comm }, waiting, stands_still } in self.exchange.sharers() {
            let still = if *stands_still { ", and stands still" } else { "" };
            let waiting = count(u64::from(*waiting), "connection");
            let fact = format!("{comm} {pid} listens there, with {waiting} in its queue{still}");
            self.add_from(ended_ns, "open files", fact);
        }
        if let Some(queue) = self.exchange.queue() {
            for Holder { process: Process { pid, comm }, doing } in &queue.holders {
                let doing =
                    doing.as_ref().map_or_else(String::new, |doing| format!(", and {}", doing.in_words()));
                self.add_from(ended_ns, "open files", format_args!("{comm} {pid} holds the listener{doing}"));
            }
            let served = if queue.is_served { "a process serves" } else { "no process serves" };
            self.add_from(ended_ns, "open files", format_args!("{served} a connection that came from it"));
        }
        for Process { pid, comm } in self.exchange.holders().unwrap_or_default() {
            self.add_from(
                self.exchange.nginx.ended_ns,
                "open files",
                format_args!("{comm} {pid} holds the worker's end"),
            );
        }
    }

    /// Who told the worker, and before that its parent, to stop.
    fn stops(&mut self, worker: &WorkerEnd) {
        for (signal, fact) in stopped::facts(self.exchange, worker) {
            self.add(signal.ns, Fact::Signals, fact);
        }
    }

    fn next_action(&mut self) {
        let Next::Seen { action, what } = &self.exchange.next_action else { return };
        let peer = if matches!(what.peer.family, FAMILY_INET | FAMILY_INET6) {
            address(&what.peer).to_string()
        } else {
            "another socket".to_owned()
        };
        let (source, fact) = match action {
            Action::Sent => {
                (Fact::Sends, format!("next, nginx sends {} to {peer}", count(u64::from(what.bytes), "byte")))
            }
            Action::Connected => (Fact::States, format!("next, nginx connects to {peer}")),
            Action::Closed if what.old_state == u32::from(tcp_state::CLOSE_WAIT) => (
                Fact::States,
                format!("next, nginx closes its connection with {peer}, which had closed before"),
            ),
            Action::Closed if what.old_state == u32::from(tcp_state::CLOSE) => {
                (Fact::Destroys, format!("next, nginx closes its connection with {peer}, which had reset it"))
            }
            Action::Closed => (Fact::States, format!("next, nginx closes its connection with {peer}")),
            Action::ShutDown => {
                (Fact::States, format!("next, nginx ends its side of the connection with {peer}"))
            }
        };
        self.add(what.ns, source, fact);
    }
}
