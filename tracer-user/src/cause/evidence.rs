//! The facts under a verdict, in the order of time.

use tracer_ebpf::{Action, DropReason, NginxEnd, WorkerEnd, tcp_state};

use super::{errors, signals};
use crate::{
    ledger::{Aftermaths, Joined, address, comm},
    verdict::Evidence,
    words::{count, times},
};

const STATES: &str = "raw_tp/inet_sock_set_state";

/// Every fact that the records of this exchange hold.
pub(super) fn of(exchange: &Joined) -> Vec<Evidence> {
    let mut facts = Facts { exchange, facts: Vec::new() };
    facts.nginx_end(&exchange.nginx);
    if let Some(worker) = &exchange.worker {
        facts.worker_end(worker);
    }
    facts.aftermath();
    facts.facts.sort_by_key(|fact| fact.us);
    facts.facts
}

struct Facts<'a> {
    exchange: &'a Joined,
    facts: Vec<Evidence>,
}

impl Facts<'_> {
    fn add(&mut self, ns: u64, source: &str, fact: String) {
        if let Some(us) = self.exchange.us(ns) {
            self.facts.push(Evidence { us, source: source.to_owned(), fact });
        }
    }

    fn nginx_end(&mut self, nginx: &NginxEnd) {
        let upstream = self.exchange.upstream();
        let who = format!("{} {}", comm(&nginx.nginx), nginx.nginx.tgid);
        self.add(nginx.connect_ns, STATES, format!("{who} connects to {upstream}"));
        for view in [&nginx.listener_first, &nginx.listener_last] {
            if view.sock != 0 {
                let full = if view.depth > view.limit { ", full" } else { "" };
                self.add(
                    view.ns,
                    "listener's sk_ack_backlog",
                    format!("accept queue of {upstream}: depth {}, backlog {}{full}", view.depth, view.limit),
                );
            }
        }
        if nginx.syn_retransmits > 0 {
            self.add(
                nginx.ended_ns,
                "raw_tp/tcp_retransmit_skb",
                format!("the SYN was sent again {}", times(u64::from(nginx.syn_retransmits))),
            );
        }
        self.add(nginx.established_ns, STATES, "the handshake is over on nginx's side".to_owned());
        self.add(
            nginx.first_sent_ns,
            "raw_tp/sock_send_length",
            "nginx begins to send the request".to_owned(),
        );
        self.add(
            nginx.first_received_ns,
            "raw_tp/sock_recv_length",
            "nginx begins to read the response".to_owned(),
        );
        if nginx.reset.ns != 0 {
            let why =
                if nginx.reset.without_socket != 0 { "no socket takes it" } else { "its socket refuses it" };
            self.add(
                nginx.reset.ns,
                "raw_tp/tcp_send_reset",
                format!("this host answers the SYN with a reset: {why}"),
            );
        }
        if let Some(reason) = self.exchange.dropped() {
            let reason = match reason {
                DropReason::Netfilter => "NETFILTER_DROP",
                DropReason::ReversePath => "IP_RPFILTER",
                DropReason::ListenOverflow => "TCP_LISTEN_OVERFLOW",
            };
            let packets = count(u64::from(nginx.dropped.packets), "packet");
            self.add(
                nginx.dropped.ns,
                "raw_tp/kfree_skb",
                format!("this host dropped {packets} of the handshake, the last one now: {reason}"),
            );
        }
        self.add(nginx.ended_ns, STATES, self.ending(nginx));
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
        self.add(
            worker.created_ns,
            STATES,
            "the listener's kernel queues the connection for accept".to_owned(),
        );
        if worker.accepted_ns != 0 {
            let who = format!("{} {}", comm(&worker.worker), worker.worker.tgid);
            self.add(worker.accepted_ns, "raw_tp/sock_recv_length", format!("{who} reads from it first"));
        }
        if worker.signal.ns != 0 && worker.exiting != 0 {
            let sender = format!("{} {}", comm(&worker.signal.sender), worker.signal.sender.tgid);
            let signal = signals::name(worker.signal.number);
            self.add(
                worker.signal.ns,
                "raw_tp/signal_generate",
                format!("{sender} sent {signal} to {}", worker.closer.tgid),
            );
        }
        let fact = match worker.error {
            0 => {
                let who = format!("{} {}", comm(&worker.closer), worker.closer.tgid);
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
        self.add(worker.ended_ns, STATES, fact);
    }

    fn aftermath(&mut self) {
        let Aftermaths::Seen { action, what } = &self.exchange.aftermath else { return };
        let peer =
            if what.peer.family == 0 { "another socket".to_owned() } else { address(&what.peer).to_string() };
        let (source, fact) = match action {
            Action::Sent => (
                "raw_tp/sock_send_length",
                format!("next, nginx sends {} to {peer}", count(u64::from(what.bytes), "byte")),
            ),
            Action::Connected => (STATES, format!("next, nginx connects to {peer}")),
            Action::Closed if what.old_state == u32::from(tcp_state::CLOSE_WAIT) => {
                (STATES, format!("next, nginx closes its connection with {peer}, which had closed before"))
            }
            Action::Closed if what.old_state == u32::from(tcp_state::CLOSE) => (
                "raw_tp/tcp_destroy_sock",
                format!("next, nginx closes its connection with {peer}, which had reset it"),
            ),
            Action::Closed => (STATES, format!("next, nginx closes its connection with {peer}")),
        };
        self.add(what.ns, source, fact);
    }
}
