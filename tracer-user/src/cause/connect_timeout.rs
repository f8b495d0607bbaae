//! `connect_timeout`: nginx gave up connecting, and no full queue explains it.

use super::{Cause, Finding};
use crate::{
    ledger::Joined,
    words::{count, span},
};

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    if !exchange.was_connecting() || exchange.nginx.error != 0 || !exchange.nginx_went_on() {
        return None;
    }
    // A listener of this host that answers nothing without a full queue: something else happened to the packets.
    let elsewhere = if exchange.listener().is_some() {
        "A listener is there, and its accept queue was not full at each SYN, so the packets were lost on the way."
    } else {
        "No listener for it is known on this host, so what happened to the packets is not seen here."
    };
    Some(
        Finding::inferred(
            Cause::ConnectSynUnanswered,
            format!(
                "Nothing answered nginx's {} to {} in {}. {elsewhere}",
                count(u64::from(exchange.nginx.syn_retransmits) + 1, "SYN"),
                exchange.upstream(),
                span(exchange.lasted_ns()),
            ),
            "whether the upstream's host is up, and firewall rules on the way that drop packets; then \
             proxy_connect_timeout or fastcgi_connect_timeout.",
        )
        .logged("ETIMEDOUT", "upstream timed out (110: Connection timed out) while connecting to upstream"),
    )
}
