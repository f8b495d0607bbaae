//! `accept_queue_overflow`: the listener had no room for the connection.

use wire::{DropReason, FAMILY_UNIX, nginx_flag};

use super::{Cause, Finding, errors, nobody_accepts};
use crate::{
    ledger::Exchange,
    model::{
        verdict::Confidence,
        words::{count, span, times},
    },
};

const ADVICE: &str = "how fast workers accept (pm.max_children, and what keeps them busy) before listen.backlog and \
                      net.core.somaxconn: a longer queue only waits longer.";

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    let finding = if exchange.nginx.upstream.family == FAMILY_UNIX {
        unix_full(exchange)
    } else if exchange.was_connecting() {
        syn_dropped(exchange)
    } else {
        aborted(exchange).or_else(|| ack_dropped(exchange))
    };
    finding.map(|finding| nobody_accepts::add(exchange, finding))
}

/// EAGAIN from a unix connect means this and nothing else (`unix_recvq_full` in unix_stream_connect).
fn unix_full(exchange: &Exchange) -> Option<Finding> {
    const EAGAIN: u32 = 11;
    if !exchange.was_connecting() || exchange.nginx.error != EAGAIN {
        return None;
    }
    // It was looked at a moment later, when there may have been room again: the errno is the proof, and no figure contradicts it.
    let view = exchange.listener().filter(|view| view.depth > view.limit);
    let waiting = view.map_or_else(String::new, |view| {
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
/// `sk_acceptq_is_full`), and counts it.
fn syn_dropped(exchange: &Exchange) -> Option<Finding> {
    let view = &exchange.nginx.listener_first;
    let was_seen = exchange.dropped() == Some(DropReason::AcceptQueueFull);
    let was_full = was_seen
        || exchange.has(nginx_flag::QUEUE_FULL_AT_CONNECT)
            && exchange.listener_dropped_syns()
            && exchange.dropped_on_the_way().is_none();
    if exchange.nginx.error != 0 || !was_full || !exchange.nginx_gave_up() {
        return None;
    }
    let tries = if was_seen { exchange.nginx.dropped.packets } else { exchange.nginx.syn_retransmits + 1 };
    // Another SYN than the first may have been the one that was seen to be dropped.
    let waiting = if view.sock == 0 || view.depth <= view.limit {
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
    let is_certain = was_seen || !exchange.listener_may_be_another();
    let finding = if is_certain { finding } else { Finding { confidence: Confidence::Inferred, ..finding } };
    Some(
        finding.logged(
            "ETIMEDOUT",
            "upstream timed out (110: Connection timed out) while connecting to upstream",
        ),
    )
}

/// The queue as it was at the last look.
fn queue_now(exchange: &Exchange) -> String {
    exchange
        .listener()
        .map_or_else(String::new, |view| format!(" (now {} wait, backlog {})", view.depth, view.limit))
}

/// Whether a listener of this host, known for certain, was full at the end and has dropped packets meanwhile.
fn is_still_full(exchange: &Exchange) -> bool {
    let (first, last) = (&exchange.nginx.listener_first, &exchange.nginx.listener_last);
    last.sock != 0
        && !exchange.listener_may_be_another()
        && last.depth > last.limit
        && first.sock == last.sock
        && first.drops != last.drops
}

/// The packet that ended the handshake drew a reset, and a listener sent it instead of making a socket: only
/// `tcp_abort_on_overflow` makes tcp_check_req do so.
fn aborted(exchange: &Exchange) -> Option<Finding> {
    const ECONNRESET: u32 = 104;
    if exchange.nginx.error != ECONNRESET || exchange.worker.is_some() || !exchange.is_connected() {
        return None;
    }
    let finding = if exchange.nginx.reset.by_listener != 0 {
        Finding::proven
    } else if exchange.nginx.reset.ns == 0
        && exchange.nginx.unacked > 0
        && is_still_full(exchange)
        && !exchange.is_on_kept_connection()
        && exchange.dropped_on_the_way().is_none()
    {
        Finding::inferred
    } else {
        return None;
    };
    Some(
        finding(
            Cause::QueueAborted,
            format!(
                "The listener on {} never made a socket for this connection and reset it when the handshake ended: its \
                 accept queue was full{}, and net.ipv4.tcp_abort_on_overflow is on.",
                exchange.upstream(),
                queue_now(exchange),
            ),
            "net.ipv4.tcp_abort_on_overflow (0 lets clients retry), then how fast workers accept.",
        )
        .logged(
            "ECONNRESET",
            "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        ),
    )
}

/// nginx was connected, yet no socket was ever made for it, and nothing nginx sent was acknowledged: the kernel dropped the
/// packets that would have ended the handshake because the accept queue was full.
fn ack_dropped(exchange: &Exchange) -> Option<Finding> {
    let never_made = exchange.worker.is_none() && exchange.is_connected();
    let unheard = exchange.nginx.sent > 0 && exchange.nginx.unacked > 0 && exchange.arrived() == 0;
    if exchange.nginx.error != 0 || !never_made || !unheard || !exchange.nginx_gave_up() {
        return None;
    }
    let finding = match exchange.dropped() {
        Some(DropReason::ListenOverflow) => Finding::proven,
        // Kernels before 6.18 may give no reason for it.
        None if is_still_full(exchange) => Finding::inferred,
        _ => return None,
    };
    Some(
        finding(
            Cause::QueueAckDropped,
            format!(
                "nginx saw its connection to {} established, but the listener never made a socket for it and \
                 acknowledged none of the {} sent: its accept queue was full when the handshake's last packet came{}.",
                exchange.upstream(),
                count(exchange.nginx.sent, "byte"),
                queue_now(exchange),
            ),
            ADVICE,
        )
        .logged(
            "ETIMEDOUT",
            "upstream timed out (110: Connection timed out) while reading response header from upstream",
        ),
    )
}
