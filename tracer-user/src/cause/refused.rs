//! `refused`: the connection was turned down.

use tracer_ebpf::nginx_flag;

use super::{Cause, Finding};
use crate::ledger::Joined;

const ENETUNREACH: u32 = 101;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;
const LISTENER: &str = "whether the upstream is running and listens on this address: `ss -lnt`, and fastcgi_pass or \
                        proxy_pass against the `listen` of the pool.";

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    if !exchange.was_connecting() {
        return None;
    }
    let upstream = exchange.upstream();
    match exchange.nginx.error {
        ECONNREFUSED if exchange.nginx.reset.without_socket != 0 => Some(Finding::proven(
            Cause::RefusedNoListener,
            format!("Nobody listens on {upstream}: the kernel found no socket for nginx's SYN and answered it with a reset."),
            LISTENER,
        )),
        ECONNREFUSED if exchange.has(nginx_flag::RESET_RECEIVED) => Some(Finding::inferred(
            Cause::RefusedNoListener,
            format!(
                "{upstream} answered nginx's SYN with a reset, as a host does where nobody listens. This host's kernel did \
                 not send it, so a firewall on the way could have, too."
            ),
            LISTENER,
        )),
        ECONNREFUSED => Some(Finding::inferred(
            Cause::RefusedByFirewall,
            format!("An ICMP message rejected nginx's SYN to {upstream}: no host's TCP sends that, a firewall's REJECT does."),
            "firewall rules between nginx and the upstream that REJECT this port.",
        )),
        ENETUNREACH | EHOSTUNREACH => Some(Finding::inferred(
            Cause::RefusedNoRoute,
            format!("{upstream} cannot be reached: an ICMP message or a failed neighbour look-up said so."),
            "routes and the neighbour table between nginx and the upstream: `ip route get`.",
        )),
        _ => None,
    }
    .map(|finding| match exchange.nginx.error {
        ENETUNREACH => finding.logged(
            "ENETUNREACH",
            "connect() failed (101: Network is unreachable) while connecting to upstream",
        ),
        EHOSTUNREACH => finding
            .logged("EHOSTUNREACH", "connect() failed (113: No route to host) while connecting to upstream"),
        _ => finding
            .logged("ECONNREFUSED", "connect() failed (111: Connection refused) while connecting to upstream"),
    })
}
