//! `connect_timeout`: nginx gave up connecting, and no full queue explains it.

use tracer_ebpf::DropReason;

use super::{Cause, Finding};
use crate::{
    ledger::Joined,
    words::{count, span},
};

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    if !exchange.was_connecting() || exchange.nginx.error != 0 || !exchange.nginx_went_on() {
        return None;
    }
    let finding =
        dropped(exchange).or_else(|| syn_queue_full(exchange)).unwrap_or_else(|| unanswered(exchange));
    Some(
        finding.logged(
            "ETIMEDOUT",
            "upstream timed out (110: Connection timed out) while connecting to upstream",
        ),
    )
}

fn dropped(exchange: &Joined) -> Option<Finding> {
    let upstream = exchange.upstream();
    let packets = count(u64::from(exchange.nginx.dropped.packets), "packet");
    let after = span(exchange.lasted_ns());
    Some(match exchange.dropped()? {
        DropReason::Netfilter => Finding::proven(
            Cause::ConnectDroppedFirewall,
            format!(
                "A netfilter rule on this host dropped {packets} of nginx's handshake with {upstream}; nginx gave up after {after}."
            ),
            "the rule: `nft list ruleset`, a drop that matches this connection.",
        ),
        DropReason::ReversePath => Finding::proven(
            Cause::ConnectDroppedRpFilter,
            format!(
                "Reverse path filtering on this host dropped {packets} of nginx's handshake with {upstream}, because the way \
                 back would leave by another interface; nginx gave up after {after}."
            ),
            "net.ipv4.conf.*.rp_filter of the interface (loose mode, 2, usually suffices) and the routes.",
        ),
        DropReason::ListenOverflow | DropReason::AcceptQueueFull => return None,
    })
}

/// More unfinished handshakes than the backlog, and the listener dropped packets meanwhile: without SYN cookies the kernel
/// drops each further SYN (`tcp_conn_request`, TCPReqQFullDrop).
fn syn_queue_full(exchange: &Joined) -> Option<Finding> {
    let (first, last) = (&exchange.nginx.listener_first, &exchange.nginx.listener_last);
    let was_full = first.sock != 0 && first.syn_queue > first.limit && first.depth <= first.limit;
    let has_dropped = first.sock == last.sock && last.drops != first.drops;
    (was_full && has_dropped).then(|| {
        Finding::proven(
            Cause::ConnectSynQueueFull,
            format!(
                "The listener on {} had {} whose handshake was not over, with a backlog of {}, and SYN cookies are off: its \
                 kernel dropped nginx's {}, and nginx gave up after {}.",
                exchange.upstream(),
                count(u64::from(first.syn_queue), "connection"),
                first.limit,
                count(u64::from(exchange.nginx.syn_retransmits) + 1, "SYN"),
                span(exchange.lasted_ns()),
            ),
            "net.ipv4.tcp_syncookies (1 avoids this), and who opens connections without finishing them.",
        )
    })
}

fn unanswered(exchange: &Joined) -> Finding {
    // A listener of this host that answers nothing without a full queue: something else happened to the packets.
    let elsewhere = if exchange.listener().is_some() {
        "A listener is there, and its accept queue was not full at each SYN, so the packets were lost on the way."
    } else {
        "No listener for it is known on this host, so what happened to the packets is not seen here."
    };
    Finding::inferred(
        Cause::ConnectSynUnanswered,
        format!(
            "Nothing answered nginx's {} to {} in {}. {elsewhere}",
            count(u64::from(exchange.nginx.syn_retransmits) + 1, "SYN"),
            exchange.upstream(),
            span(exchange.lasted_ns()),
        ),
        "whether the upstream's host is up, and firewall rules on the way that drop packets; then proxy_connect_timeout or \
         fastcgi_connect_timeout.",
    )
}
