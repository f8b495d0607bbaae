//! `local_error`: connect failed on this host, before anything was sent.

use super::{Cause, Finding, errors};
use crate::ledger::Joined;

const EADDRNOTAVAIL: u32 = 99;

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    if !exchange.was_connecting() {
        return None;
    }
    let upstream = exchange.upstream();
    // TCP enters SYN_SENT, finds no port (inet_hash_connect), and leaves it again within the same connect call.
    if exchange.nginx.error == EADDRNOTAVAIL || exchange.nginx.error == 0 && exchange.has_no_local_port() {
        return Some(
            Finding::proven(
                Cause::LocalPorts,
                format!("This host had no local port left for one more connection to {upstream}."),
                "net.ipv4.ip_local_port_range, and keepalive in the upstream block: each connection keeps its port for a \
                 minute after it was closed.",
            )
            .logged(
                "EADDRNOTAVAIL",
                format!("connect() to {upstream} failed (99: Cannot assign requested address) while connecting to upstream"),
            ),
        );
    }
    if exchange.nginx.error == 0 || !exchange.failed_at_once() {
        return None;
    }
    let error = errors::name(exchange.nginx.error);
    Some(
        Finding::proven(
            Cause::LocalError,
            format!("connect to {upstream} failed at once with {error}, before anything was sent."),
            "what this error means for connect(2), on this host.",
        )
        .logged(error, errors::connect_line(exchange)),
    )
}
