//! `refused`: the connection was turned down.

use tracer_ebpf::{DropReason, nginx_flag};

use super::{Cause, Finding, errors};
use crate::{ledger::Joined, verdict::Upstream, words::count};

const ENOENT: u32 = 2;
const EACCES: u32 = 13;
const ENETUNREACH: u32 = 101;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;
const LISTENER: &str = "whether the upstream is running and listens on this address: `ss -lnt`, and fastcgi_pass or \
                        proxy_pass against the `listen` of the pool.";

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    if !exchange.was_connecting() {
        return None;
    }
    let finding = match exchange.upstream() {
        Upstream::Unix(path) => unix(exchange, &path.display().to_string()),
        Upstream::Inet(upstream) => inet(exchange, &upstream.to_string()),
    }?;
    Some(finding.logged(errors::name(exchange.nginx.error), errors::connect_line(exchange)))
}

/// Each errno of a unix connect has one meaning (unix_find_other and unix_stream_connect in net/unix/af_unix.c).
fn unix(exchange: &Joined, path: &str) -> Option<Finding> {
    Some(match exchange.nginx.error {
        ENOENT => Finding::proven(
            Cause::RefusedSocketMissing,
            format!(
                "The unix socket {path} does not exist: whoever should listen there has not started, or was stopped properly."
            ),
            "whether the upstream is running, and fastcgi_pass or proxy_pass against the `listen` of the pool.",
        ),
        EACCES => Finding::proven(
            Cause::RefusedPermission,
            format!(
                "nginx may not write to the unix socket {path}, or may not search one of the folders above it."
            ),
            "the user of nginx's workers against listen.owner, listen.group and listen.mode of the pool.",
        ),
        ECONNREFUSED => Finding::proven(
            Cause::RefusedNoListener,
            format!(
                "The unix socket {path} exists, but nobody listens on it: it was left behind by a process that was killed."
            ),
            "whether the upstream is running: it died without removing its socket.",
        ),
        _ => return None,
    })
}

fn inet(exchange: &Joined, upstream: &str) -> Option<Finding> {
    let was_dropped = exchange.dropped() == Some(DropReason::Netfilter);
    let refused = exchange.nginx.error == ECONNREFUSED;
    let unreachable = matches!(exchange.nginx.error, ENETUNREACH | EHOSTUNREACH);
    Some(match exchange.nginx.error {
        _ if (refused || unreachable) && was_dropped => Finding::proven(
            Cause::RefusedByFirewall,
            format!(
                "A netfilter rule on this host rejected nginx's SYN to {upstream}: it dropped the packet and answered in the upstream's name."
            ),
            "the rule: `nft list ruleset`, a REJECT that matches this port.",
        ),
        ECONNREFUSED if exchange.nginx.reset.without_socket != 0 => Finding::proven(
            Cause::RefusedNoListener,
            format!(
                "Nobody listens on {upstream}: the kernel found no socket for nginx's SYN and answered it with a reset."
            ),
            LISTENER,
        ),
        ECONNREFUSED if exchange.has(nginx_flag::RESET_RECEIVED) && exchange.is_to_own_address() => {
            Finding::inferred(
                Cause::RefusedByFirewall,
                format!(
                    "A reset answered nginx's SYN to {upstream}, which is on this host, yet no socket look-up of this host's TCP sent it."
                ),
                "firewall rules of this host that REJECT this port with a TCP reset.",
            )
        }
        ECONNREFUSED if exchange.has(nginx_flag::RESET_RECEIVED) => Finding::inferred(
            Cause::RefusedNoListener,
            format!(
                "{upstream} answered nginx's SYN with a reset, as a host does where nobody listens. This host's kernel did \
                 not send it, so a firewall on the way could have, too."
            ),
            LISTENER,
        ),
        ECONNREFUSED => Finding::inferred(
            Cause::RefusedByFirewall,
            format!(
                "An ICMP message rejected nginx's SYN to {upstream}: no host's TCP sends that, a firewall's REJECT does."
            ),
            "firewall rules between nginx and the upstream that REJECT this port.",
        ),
        ENETUNREACH | EHOSTUNREACH => Finding::inferred(
            Cause::RefusedNoRoute,
            format!(
                "{upstream} cannot be reached: {}.",
                if exchange.failed_at_once() {
                    "this host has no route to it".to_owned()
                } else {
                    format!(
                        "after {}, an ICMP message or a failed neighbour look-up said so",
                        count(u64::from(exchange.nginx.syn_retransmits) + 1, "SYN")
                    )
                }
            ),
            "routes and the neighbour table between nginx and the upstream: `ip route get`.",
        ),
        _ => return None,
    })
}
