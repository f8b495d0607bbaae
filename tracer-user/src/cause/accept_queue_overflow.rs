//! `accept_queue_overflow`: the listener had no room for the connection.

use tracer_ebpf::{DropReason, FAMILY_UNIX, nginx_flag};

use super::{Cause, Finding, errors};
use crate::{
    ledger::Joined,
    verdict::Confidence,
    words::{count, span, times},
};

const ADVICE: &str = "how fast workers accept (pm.max_children, and what keeps them busy) before listen.backlog and \
                      net.core.somaxconn: a longer queue only waits longer.";

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    if exchange.nginx.upstream.family == FAMILY_UNIX {
        unix_full(exchange)
    } else if exchange.was_connecting() {
        syn_dropped(exchange)
    } else {
        ack_dropped(exchange)
    }
}

/// EAGAIN from a unix connect means this and nothing else (`unix_recvq_full` in unix_stream_connect).
fn unix_full(exchange: &Joined) -> Option<Finding> {
    const EAGAIN: u32 = 11;
    if !exchange.was_connecting() || exchange.nginx.error != EAGAIN {
        return None;
    }
    let waiting = exchange.listener().map_or_else(String::new, |view| {
        format!(": {} waited where the backlog is {}", count(u64::from(view.depth), "connection"), view.limit)
    });
    Some(
        Finding::proven(
            Cause::QueueUnixFull,
            format!(
                "The accept queue of {} was full{waiting}. A unix socket refuses at once, without a retry.",
                exchange.upstream()
            ),
            ADVICE,
        )
        .logged("EAGAIN", errors::connect_line(exchange)),
    )
}

/// Either the listener was seen to meet nginx's SYN with a full queue, or each look at it while the SYN was unanswered found more
/// connections than its backlog. The kernel drops a SYN then, whatever else holds (`tcp_conn_request` tests
/// `sk_acceptq_is_full`).
fn syn_dropped(exchange: &Joined) -> Option<Finding> {
    let view = &exchange.nginx.listener_first;
    let was_seen = exchange.dropped() == Some(DropReason::AcceptQueueFull);
    let was_full = was_seen || exchange.has(nginx_flag::QUEUE_FULL_AT_CONNECT);
    if exchange.nginx.error != 0 || !was_full || !exchange.nginx_went_on() {
        return None;
    }
    let tries = if was_seen { exchange.nginx.dropped.packets } else { exchange.nginx.syn_retransmits + 1 };
    let waiting = if view.sock == 0 {
        String::new()
    } else {
        format!(": {} waited where the backlog is {}", count(u64::from(view.depth), "connection"), view.limit)
    };
    let finding = Finding::proven(
        Cause::QueueSynDropped,
        format!(
            "The accept queue of {} was full{waiting}. Its kernel dropped nginx's SYN {}, and nginx gave up connecting \
             after {}.",
            exchange.upstream(),
            times(u64::from(tries)),
            span(exchange.lasted_ns()),
        ),
        ADVICE,
    );
    // Where several listeners share the address, the one that was looked at need not be the one that was asked.
    let is_certain = was_seen || view.shared <= 1;
    let finding = if is_certain { finding } else { Finding { confidence: Confidence::Inferred, ..finding } };
    Some(
        finding.logged(
            "ETIMEDOUT",
            "upstream timed out (110: Connection timed out) while connecting to upstream",
        ),
    )
}

/// nginx was connected, yet the listener, which is on this host, never made a socket for it, and nothing nginx sent
/// was acknowledged.
fn ack_dropped(exchange: &Joined) -> Option<Finding> {
    let view = &exchange.nginx.listener_last;
    let never_made =
        exchange.worker.is_none() && exchange.is_connected() && view.sock != 0 && view.shared <= 1;
    let unheard = exchange.nginx.sent > 0 && exchange.nginx.unacked > 0 && exchange.arrived() == 0;
    if exchange.nginx.error != 0 || !never_made || !unheard || !exchange.nginx_went_on() {
        return None;
    }
    let seen = exchange.dropped() == Some(DropReason::ListenOverflow);
    let finding = if seen { Finding::proven } else { Finding::inferred };
    Some(
        finding(
            Cause::QueueAckDropped,
            format!(
                "nginx saw its connection to {} established, but the listener never made a socket for it and \
                 acknowledged none of the {} sent: its accept queue was full when the handshake's last packet came \
                 (now {} wait, backlog {}).",
                exchange.upstream(),
                count(exchange.nginx.sent, "byte"),
                view.depth,
                view.limit,
            ),
            ADVICE,
        )
        .logged(
            "ETIMEDOUT",
            "upstream timed out (110: Connection timed out) while reading response header from upstream",
        ),
    )
}
