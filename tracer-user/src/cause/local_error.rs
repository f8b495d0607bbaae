//! `local_error`: connect failed on this host, before anything was sent.

use super::{Cause, Finding, errors};
use crate::ledger::Exchange;

const EACCES: u32 = 13;
const EADDRNOTAVAIL: u32 = 99;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const ADVICE: &str = "what this error means for connect(2), on this host.";

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if !exchange.was_connecting() {
        return None;
    }
    let upstream = exchange.upstream();
    // A connect that is emitted with this error did not come as far as TCP, which looks for a port.
    if exchange.nginx.error == EADDRNOTAVAIL && exchange.failed_at_once() {
        return at_once(EADDRNOTAVAIL, &upstream.to_string())
            .map(|finding| finding.logged("EADDRNOTAVAIL", errors::connect_line(exchange)));
    }
    // TCP enters SYN_SENT, finds no port (inet_hash_connect), and leaves it again within the same connect call.
    if exchange.nginx.error == 0 && exchange.has_no_local_port() {
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
            ADVICE,
        )
        .logged(error, errors::connect_line(exchange)),
    )
}

/// A connect over TCP that failed at once, by nginx's word alone. None where the error is an answer's.
pub(super) fn at_once(error: u32, upstream: &str) -> Option<Finding> {
    let failed = format!(
        "connect to {upstream} failed at once with {}, before anything was sent",
        errors::name(error)
    );
    Some(match error {
        0 | ECONNREFUSED | ECONNRESET | ETIMEDOUT => return None,
        EADDRNOTAVAIL => Finding::inferred(
            Cause::LocalError,
            format!(
                "{failed}: this host has no address of its own to reach it from, or had no local port left."
            ),
            "`ip address` in nginx's network namespace, for IPv6 whether it has any (`ip -6 address`); then \
             net.ipv4.ip_local_port_range.",
        ),
        EACCES => Finding::inferred(
            Cause::LocalError,
            format!(
                "{failed}: a route of type prohibit, a firewall or a security module; which was not looked up."
            ),
            "`ip rule` and `ip route get` in nginx's network namespace, and what confines nginx's processes.",
        ),
        _ => Finding::proven(Cause::LocalError, format!("{failed}."), ADVICE),
    })
}
