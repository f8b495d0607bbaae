//! The kernel's settings that make the answer different from what is commonly believed.

use std::collections::BTreeSet;

use super::{Check, Scene};
use crate::{
    command::backlog::{Queue, netns::Netns},
    model::upstream::Upstream,
};

/// Checks the settings of each network namespace in which a TCP listener is emitted.
pub(super) fn checks(scene: &Scene<'_>) -> Vec<Check> {
    let tcp = || scene.emitted.iter().filter(|queue| matches!(queue.addr, Upstream::Inet(_)));
    let namespaces: BTreeSet<u32> = scene.emitted.iter().map(|queue| queue.netns).collect();
    let mut checks = Vec::new();
    for number in namespaces {
        let Some(netns) = scene.books.netns(number) else {
            checks.push(Check {
                claim: format!("the settings of network namespace {number} change nothing for its listeners"),
                holds: None,
                figures: "it cannot be looked into; why is told with the kernel's own count".to_owned(),
            });
            continue;
        };
        let there: Vec<&Queue> = scene.emitted.iter().filter(|queue| queue.netns == number).collect();
        checks.push(check(netns, "net.core.somaxconn", |value| somaxconn(value, &there)));
        if tcp().any(|queue| queue.netns == number) {
            checks.push(check(netns, "net.ipv4.tcp_abort_on_overflow", abort_on_overflow));
            checks.push(check(netns, "net.ipv4.tcp_syncookies", |value| syncookies(value, &there)));
        }
    }
    checks
}

/// What a setting comes to, or that it cannot be read.
fn check(netns: &Netns, name: &str, of: impl FnOnce(u32) -> Check) -> Check {
    netns.setting(name).map_or_else(
        |error| Check {
            claim: format!("{name} changes nothing for these listeners"),
            holds: None,
            figures: format!("it cannot be read there: {error}"),
        },
        of,
    )
}

fn somaxconn(value: u32, queues: &[&Queue]) -> Check {
    let cut: Vec<String> =
        queues.iter().filter(|queue| queue.limit >= value).map(|queue| queue.addr.to_string()).collect();
    Check {
        claim: "net.core.somaxconn limits none of these listeners".to_owned(),
        holds: Some(cut.is_empty()),
        figures: match &cut[..] {
            [] => format!("it is {value}, and each limit is below"),
            cut => format!("it is {value}, the limit of {}", cut.join(", ")),
        },
    }
}

fn abort_on_overflow(value: u32) -> Check {
    Check {
        claim: "a handshake that ends at a full queue is delayed, not reset".to_owned(),
        holds: Some(value == 0),
        figures: format!("tcp_abort_on_overflow is {value}; a SYN at a full queue is dropped in either case"),
    }
}

fn syncookies(value: u32, queues: &[&Queue]) -> Check {
    let dropped: u64 = queues.iter().map(|queue| queue.syn_drops).sum();
    Check {
        claim: "SYN cookies keep a full accept queue from dropping SYNs".to_owned(),
        // tcp_conn_request looks at the accept queue before it thinks of cookies.
        holds: Some(false),
        figures: match dropped {
            0 => format!(
                "tcp_syncookies is {value}; no queue was full to show it here, `why502 backlog --experiment` does"
            ),
            dropped => {
                format!("tcp_syncookies is {value}, and {dropped} SYNs were dropped at full accept queues")
            }
        },
    }
}
