//! `kernel_timeout`: the kernel gave up before nginx did.

use super::{Cause, Finding, reached};
use crate::{
    ledger::Exchange,
    model::words::{count, span},
};

const ETIMEDOUT: u32 = 110;

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if exchange.nginx.error != ETIMEDOUT {
        return None;
    }
    let (upstream, after) = (exchange.upstream(), span(exchange.lasted_ns()));
    Some(if exchange.was_connecting() {
        let finding = Finding::inferred(
            Cause::KernelSynRetries,
            format!(
                "{upstream} answered none of {} in {after}, and the kernel gave up.",
                count(u64::from(exchange.nginx.syn_retransmits) + 1, "SYN")
            ),
            "whether the upstream's host is up; net.ipv4.tcp_syn_retries, and a shorter connect timeout in nginx.",
        );
        let reached = reached::of(exchange, finding.cause);
        reached::with(finding, reached, exchange.began_ns())
            .logged("ETIMEDOUT", "connect() failed (110: Connection timed out) while connecting to upstream")
    } else {
        Finding::inferred(
            Cause::KernelRetransmits,
            format!(
                "{upstream} stopped acknowledging what nginx had sent; after {} and {after} the kernel gave up.",
                count(u64::from(exchange.nginx.retransmits), "retransmission")
            ),
            "the network between nginx and the upstream, and whether the upstream's host went away.",
        )
        .logged(
            "ETIMEDOUT",
            if exchange.nginx.received == 0 {
                "recv() failed (110: Connection timed out) while reading response header from upstream"
            } else {
                "readv() failed (110: Connection timed out) while reading upstream"
            },
        )
    })
}
