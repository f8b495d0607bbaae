//! `connect_timeout`: nginx gave up connecting, and no full queue explains it.

use wire::{DropReason, nginx_flag};

use super::{Cause, Finding, conntrack, dropped, reached};
use crate::{
    ledger::Exchange,
    model::{
        verdict::Confidence,
        words::{count, span},
    },
};

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if !exchange.was_connecting() || exchange.nginx.error != 0 || !exchange.nginx_gave_up() {
        return None;
    }
    let finding =
        dropped_here(exchange).or_else(|| syn_queue_full(exchange)).unwrap_or_else(|| unanswered(exchange));
    let reached = reached::of(exchange, finding.cause);
    Some(
        reached::with(finding, reached, exchange.began_ns()).logged(
            "ETIMEDOUT",
            "upstream timed out (110: Connection timed out) while connecting to upstream",
        ),
    )
}

fn dropped_here(exchange: &Exchange) -> Option<Finding> {
    let upstream = exchange.upstream();
    let packets = count(u64::from(exchange.nginx.dropped.packets), "packet");
    let after = span(exchange.lasted_ns());
    let finding = match exchange.dropped()? {
        DropReason::Netfilter if let Some(finding) = conntrack::full(exchange, &packets, &after) => finding,
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
        reason => Finding::proven(
            Cause::ConnectDroppedKernel,
            format!(
                "This host's kernel dropped {packets} of nginx's handshake with {upstream}, by {} ({}); nginx gave up after {after}.",
                dropped::by(reason)?,
                reason.kernel_name()
            ),
            dropped::advice(reason),
        ),
    };
    // Fewer drops than SYNs: some of them went unanswered for another reason.
    let is_partial = exchange.nginx.dropped.packets <= exchange.nginx.syn_retransmits;
    Some(if is_partial { Finding { confidence: Confidence::Inferred, ..finding } } else { finding })
}

/// At each look more unfinished handshakes than the backlog, and SYN cookies off: the kernel drops each SYN then
/// (`tcp_conn_request`, TCPReqQFullDrop), and counts it. Old kernels do so as soon as there are as many, which is an inference.
fn syn_queue_full(exchange: &Exchange) -> Option<Finding> {
    if !exchange.has(nginx_flag::SYN_QUEUE_FULL_AT_CONNECT) || !exchange.listener_dropped_syns() {
        return None;
    }
    let view = &exchange.nginx.listener_first;
    let finding = Finding::proven(
        Cause::ConnectSynQueueFull,
        format!(
            "The listener on {} had {} whose handshake was not over, with a backlog of {}, and SYN cookies are off: its \
             kernel dropped nginx's SYN {}, and nginx gave up after {}.",
            exchange.upstream(),
            count(u64::from(view.syn_queue), "connection"),
            view.limit,
            count(u64::from(exchange.nginx.syn_retransmits) + 1, "time"),
            span(exchange.lasted_ns()),
        ),
        "net.ipv4.tcp_syncookies (1 avoids this), and who opens connections without finishing them.",
    );
    Some(if exchange.listener_may_be_another() || view.syn_queue <= view.limit {
        Finding { confidence: Confidence::Inferred, ..finding }
    } else {
        finding
    })
}

fn unanswered(exchange: &Exchange) -> Finding {
    // A listener of this host that answers nothing without a full queue: something else happened to the packets.
    let elsewhere = if exchange.listener().is_some() {
        "A listener is there, and its queues do not account for it, so packets were lost on the way there or back."
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
