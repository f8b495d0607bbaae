//! `refused`: the connection was turned down.

use std::path::Path;

use wire::{DropReason, nginx_flag};

use super::{Cause, Finding, denied, errors, local_error, near, reached};
use crate::{
    ledger::{Exchange, Said},
    model::{
        inquiry::{Denial, Kind, Ordinary, Place},
        upstream::Upstream,
        words::count,
    },
};

const ENOENT: u32 = 2;
const EACCES: u32 = 13;
const EAGAIN: u32 = 11;
const ENETUNREACH: u32 = 101;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;
const LISTENER: &str = "whether the upstream is running and listens on this address: `ss -lnt`, and fastcgi_pass or \
                        proxy_pass against the `listen` of the pool.";
const ROUTES: &str =
    "routes and the neighbour table between nginx and the upstream: `ip route get`, `ip neigh`.";

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if !exchange.was_connecting() {
        return None;
    }
    let denial = exchange.denial().filter(|_| exchange.nginx.error == EACCES && exchange.failed_at_once());
    let upstream = exchange.upstream();
    let denied = denial.and_then(|denial| denied::judge(&upstream, denial));
    let finding = denied.or_else(|| match &upstream {
        Upstream::Unix(path) => {
            unix(exchange.nginx.error, path, denial, exchange.place(), exchange.has_folder())
        }
        Upstream::Inet(upstream) => inet(exchange, &upstream.to_string()),
        Upstream::Named(_) => None,
    })?;
    let finding = near::with(finding, exchange);
    let reached = reached::of(exchange, finding.cause);
    let finding = reached::with(finding, reached, exchange.began_ns());
    let errno = errors::name(exchange.nginx.error);
    // Since 5.19 (ip_icmp_error in tcp_v4_err) the kernel wakes nginx before it sets the error: nginx may take itself for connected then,
    // and meet the error in its first receive.
    Some(if exchange.nginx.icmp.ns != 0 {
        finding.met(errno)
    } else {
        finding.logged(errno, errors::connect_line(exchange))
    })
}

/// A connect that failed at once, of which nothing but nginx's word and the errno in it was seen.
pub(super) fn at_once(peer: &Upstream, said: &Said) -> Option<Finding> {
    let (error, denial) = (said.errno, said.denial());
    if let Some(finding) = denial.and_then(|denial| denied::judge(peer, denial)) {
        return Some(finding);
    }
    match peer {
        Upstream::Unix(path) if error == EAGAIN => Some(Finding::proven(
            Cause::QueueUnixFull,
            format!(
                "The accept queue of {} was full, and its kernel refused the connection at once.",
                path.display()
            ),
            "what keeps the workers busy; then listen.backlog of the pool, and net.core.somaxconn, which limits it.",
        )),
        Upstream::Unix(path) => unix(error, path, denial, said.place(), said.has_folder()),
        Upstream::Inet(upstream) => {
            let finding = inet_at_once(error, &upstream.to_string())?;
            let reached = reached::of_word(said, finding.cause);
            Some(reached::with(finding, reached, said.ns))
        }
        Upstream::Named(_) => None,
    }
}

/// The errno in nginx's word is what connect returned to it (`ngx_event_connect_peer`, src/event/ngx_event_connect.c). That of an
/// unreachable upstream may be a filter's on connect, too, which is not seen: BPF programs of a control group return any.
fn inet_at_once(error: u32, upstream: &str) -> Option<Finding> {
    match error {
        ENETUNREACH | EHOSTUNREACH => Some(Finding::inferred(
            Cause::RefusedNoRoute,
            format!(
                "{upstream} cannot be reached: connect said so at once with {}, as it does where this host has no route to it.",
                errors::name(error)
            ),
            ROUTES,
        )),
        _ => local_error::at_once(error, upstream),
    }
}

/// Each errno of a unix connect but EACCES has one meaning (unix_find_other and unix_stream_connect in net/unix/af_unix.c).
fn unix(
    error: u32,
    path: &Path,
    denial: Option<&Denial>,
    place: Option<&Place>,
    has_folder: Option<bool>,
) -> Option<Finding> {
    let (folder, path) = (path.parent().unwrap_or(path).display().to_string(), path.display().to_string());
    let path = path.as_str();
    Some(match error {
        ENOENT => missing(path, &folder, has_folder),
        EACCES => {
            let finding = Finding::proven(
                Cause::RefusedPermission,
                format!(
                    "nginx may not write to the unix socket {path}, or may not search one of the folders above it.{}",
                    denied::not_asked(denial)
                ),
                "the user of nginx's workers against listen.owner, listen.group and listen.mode of the pool.",
            );
            // A security module says the same.
            let is_looked_at = denial.is_some_and(|denial| denial.ordinary == Ordinary::Forbid);
            if is_looked_at { finding } else { finding.at_most_inferred() }
        }
        ECONNREFUSED => nobody_at(path, place),
        _ => return None,
    })
}

/// The path does not exist.
fn missing(path: &str, folder: &str, has_folder: Option<bool>) -> Finding {
    let (what, advice) = match has_folder {
        Some(false) => (
            format!("nor does its folder {folder}: whoever should make both has not started, or nginx has another root"),
            format!(
                "what makes {folder} (RuntimeDirectory= of the upstream's unit, tmpfiles.d: what lies under /run is gone after a boot), and \
                 fastcgi_pass or proxy_pass against the `listen` of the pool."
            ),
        ),
        has_folder => (
            format!(
                "{}whoever should listen there has not started, or was stopped properly",
                if has_folder.is_some() { "though its folder does: " } else { "" }
            ),
            "whether the upstream is running, and fastcgi_pass or proxy_pass against the `listen` of the pool.".to_owned(),
        ),
    };
    let joint = if has_folder.is_some() { "," } else { ":" };
    Finding::proven(
        Cause::RefusedSocketMissing,
        format!("The unix socket {path} does not exist{joint} {what}."),
        advice,
    )
}

/// The path exists, and connect was refused: `unix_find_bsd` and `unix_stream_connect` in net/unix/af_unix.c refuse what is no socket, one that
/// no process has, and one on which nobody listens.
fn nobody_at(path: &str, place: Option<&Place>) -> Finding {
    let (what, advice) = match place {
        Some(Place { kind: Kind::Regular, .. }) => no_socket(path, "a regular file"),
        Some(Place { kind: Kind::Folder, .. }) => no_socket(path, "a folder"),
        Some(Place { kind: Kind::Other, .. }) => no_socket(path, "neither a socket nor a file"),
        Some(Place { kind: Kind::Socket, bound: Some(bound) }) => match bound.first() {
            Some(one) => (
                format!(
                    "The unix socket {path} is there, and {} {} has bound it, but does not listen on it.",
                    one.comm, one.pid
                ),
                "why it does not listen: it is still starting, hangs before its listen, or has made a socket of another kind.",
            ),
            None => (
                format!(
                    "The unix socket {path} exists, but no process has it any more: whoever listened there ended without removing it."
                ),
                "whether the upstream is running: it died without removing its socket.",
            ),
        },
        Some(Place { kind: Kind::Socket | Kind::Unknown, .. }) | None => (
            format!("The unix socket {path} exists, but nobody listens on it."),
            "whether the upstream is running: one that is killed leaves its socket behind.",
        ),
    };
    Finding::proven(Cause::RefusedNoListener, what, advice)
}

fn no_socket(path: &str, what: &str) -> (String, &'static str) {
    (
        format!("Nobody can listen on {path}: it is {what}, no socket."),
        "what put it there, and fastcgi_pass or proxy_pass against the `listen` of the pool: removing it lets the upstream bind its socket.",
    )
}

fn inet(exchange: &Exchange, upstream: &str) -> Option<Finding> {
    let reset = &exchange.nginx.reset;
    // A reset that a socket look-up sent after the drop is the answer to a later SYN.
    let was_rejected =
        exchange.dropped() == Some(DropReason::Netfilter) && reset.ns < exchange.nginx.dropped.ns;
    let was_reset = exchange.has(nginx_flag::RESET_RECEIVED);
    Some(match exchange.nginx.error {
        ECONNREFUSED | ENETUNREACH | EHOSTUNREACH | EACCES if was_rejected => Finding::proven(
            Cause::RefusedByFirewall,
            format!(
                "A netfilter rule on this host rejected nginx's SYN to {upstream}: it dropped the packet and answered in the upstream's name."
            ),
            "the rule: `nft list ruleset`, a REJECT that matches this port.",
        ),
        ECONNREFUSED if reset.without_socket != 0 => Finding::proven(
            Cause::RefusedNoListener,
            format!(
                "Nobody listens on {upstream}: the kernel found no socket for nginx's SYN and answered it with a reset."
            ),
            LISTENER,
        ),
        ECONNREFUSED
            if was_reset
                && exchange.is_to_own_address()
                && (exchange.listener().is_some() || exchange.has(nginx_flag::OWN_RESETS_SEEN)) =>
        {
            Finding::inferred(
                Cause::RefusedByFirewall,
                format!(
                    "A reset answered nginx's SYN to {upstream}, which is on this host, yet this host's TCP did not send it."
                ),
                "firewall rules of this host that REJECT this port with a TCP reset.",
            )
        }
        ECONNREFUSED if was_reset => Finding::inferred(
            Cause::RefusedNoListener,
            format!(
                "{upstream} answered nginx's SYN with a reset, as a host does where nobody listens. This host's kernel was \
                 not seen to send it, so a firewall on the way could have, too."
            ),
            LISTENER,
        ),
        ECONNREFUSED | EHOSTUNREACH | EACCES if errors::is_rejection(&exchange.nginx.icmp) => {
            Finding::inferred(
                Cause::RefusedByFirewall,
                format!(
                    "An ICMP message, \"{}\", rejected nginx's SYN to {upstream}: no host's TCP sends that, a firewall's REJECT does.",
                    errors::icmp(&exchange.nginx.icmp)
                ),
                "firewall rules between nginx and the upstream that REJECT this port.",
            )
        }
        ECONNREFUSED => Finding::inferred(
            Cause::RefusedByFirewall,
            format!(
                "An ICMP message rejected nginx's SYN to {upstream}: no host's TCP sends that, a firewall's REJECT does."
            ),
            "firewall rules between nginx and the upstream that REJECT this port.",
        ),
        ENETUNREACH | EHOSTUNREACH => no_route(exchange, upstream),
        _ => return None,
    })
}

fn no_route(exchange: &Exchange, upstream: &str) -> Finding {
    let (finding, why): (fn(_, _, _) -> _, _) = if exchange.failed_at_once() {
        (Finding::proven, "this host has no route to it, and connect said so at once".to_owned())
    } else if exchange.dropped() == Some(DropReason::NeighbourFailed) {
        (
            Finding::proven,
            "the next host on the way, or the upstream's own, does not answer on its link, so this host's kernel dropped the SYN"
                .to_owned(),
        )
    } else if exchange.nginx.icmp.ns != 0 {
        (
            Finding::inferred,
            format!("an ICMP message from a host on the way said \"{}\"", errors::icmp(&exchange.nginx.icmp)),
        )
    } else {
        let syns = count(u64::from(exchange.nginx.syn_retransmits) + 1, "SYN");
        (
            Finding::inferred,
            format!(
                "after {syns}, an ICMP message said so; a firewall that rejects with \"administratively prohibited\" looks the same"
            ),
        )
    };
    finding(Cause::RefusedNoRoute, format!("{upstream} cannot be reached: {why}."), ROUTES.to_owned())
}
