//! What is near an upstream at which nobody listens.

use std::net::SocketAddr;

use super::{Cause, Finding, signals};
use crate::{
    ledger::Exchange,
    model::{
        near::{Closed, Near},
        upstream::Upstream,
        verdict::{self, Neighbour, Process},
        words::{count, span},
    },
};

/// The same finding, with who listens near, where that was looked for.
pub(super) fn with(finding: Finding, exchange: &Exchange) -> Finding {
    let is_bare = matches!(finding.cause, Some(Cause::RefusedNoListener | Cause::RefusedSocketMissing));
    let Some(near) = exchange.near.as_ref().filter(|_| is_bare && is_of_use(exchange)) else {
        return finding;
    };
    let closed = near.closed.as_ref().map(|closed| was_closed(closed, exchange.nginx.ended_ns));
    let is_unexplained = near.neighbours.is_empty();
    let said = match exchange.upstream() {
        // Who was there says more than that nobody else is.
        Upstream::Inet(_) if closed.is_some() && is_unexplained => None,
        Upstream::Inet(upstream) => Some(inet(near, upstream)),
        Upstream::Unix(_) => unix(near),
        Upstream::Named(_) => None,
    };
    let said = match (closed, said) {
        (Some((closed, advice)), None) => Some((closed, advice)),
        (Some((closed, _)), Some((sentence, advice))) => Some((format!("{closed}{sentence}"), advice)),
        (None, said) => said,
    };
    let Some((sentence, advice)) = said else { return finding };
    Finding {
        explanation: format!("{}{sentence}", finding.explanation),
        advice: if advice.is_empty() { finding.advice } else { advice },
        ..finding
    }
}

/// Who had listened there until a moment before nginx asked, and what became of him.
fn was_closed(closed: &Closed, failed_ns: u64) -> (String, String) {
    let Closed { process: Process { pid, comm }, ns, again_ns, exit, namesakes } = closed;
    let ago = span(failed_ns.saturating_sub(*ns));
    let (how, advice) = match (exit, exit.and_then(signals::of_exit)) {
        (_, Some(signal)) => {
            let signal = signals::name(signal);
            (
                format!("until it died of {signal}, {ago} before"),
                format!("who sent {signal} to {comm} {pid}, or why it died; and what is to start it again."),
            )
        }
        (Some(_), None) => (
            format!("until it exited, {ago} before"),
            format!("why {comm} {pid} exited (its log), and what is to start it again."),
        ),
        (None, None) => (
            format!("until it closed its listener, {ago} before"),
            format!(
                "whether {comm} was being restarted or reloaded: with nobody there in between, nginx is refused."
            ),
        ),
    };
    let again = match again_ns {
        None => String::new(),
        Some(again) if *again >= failed_ns => {
            format!(" Somebody has listened there again since {} after nginx asked.", span(again - failed_ns))
        }
        Some(again) => {
            format!(
                " Somebody has listened there again since {} before nginx asked.",
                span(failed_ns - again)
            )
        }
    };
    let named: Vec<String> = namesakes.iter().map(in_words).collect();
    let (elsewhere, advice) = match namesakes.first() {
        None => (String::new(), advice),
        Some(first) => (
            format!(" By now, {}.", named.join(", ")),
            format!(
                "the address in fastcgi_pass or proxy_pass against the one that {comm} listens on now, {}: its configuration may have changed.",
                first.listens
            ),
        ),
    };
    (format!(" {comm} {pid} listened there {how}.{again}{elsewhere}"), advice)
}

/// The listener that was closed, as a verdict names it.
pub(super) fn closed(exchange: &Exchange) -> Option<verdict::Closed> {
    let Closed { process, ns, again_ns, exit, namesakes } = exchange.near.as_ref()?.closed.clone()?;
    Some(verdict::Closed {
        process,
        us: exchange.us(ns)?,
        again_us: again_ns.and_then(|ns| exchange.us(ns)),
        signal: exit.and_then(signals::of_exit).map(signals::name),
        namesakes,
    })
}

/// Whether the upstream's address leads to this host: what listens here has nothing to do with another one.
fn is_of_use(exchange: &Exchange) -> bool {
    exchange.path.is_some() || exchange.is_to_own_address() || exchange.nginx.reset.without_socket != 0
}

fn inet(near: &Near, upstream: SocketAddr) -> (String, String) {
    let port = upstream.port();
    let Some(first) = near.neighbours.first() else {
        return (format!(" Nothing on this host listens on port {port}, at any address."), String::new());
    };
    let is_there = |neighbour: &Neighbour| {
        !neighbour.is_elsewhere
            && matches!(neighbour.listens, Upstream::Inet(place) if place == upstream
                || place.ip().is_unspecified() && place.is_ipv4() == upstream.is_ipv4())
    };
    if is_there(first) {
        let Process { pid, comm } = &first.process;
        return (
            format!(
                " {comm} {pid} listens on {} by now: it began a moment later, or takes connections from another interface only.",
                first.listens
            ),
            format!(
                "whether {comm} was just being restarted; if not, to which interface it is bound (SO_BINDTODEVICE)."
            ),
        );
    }
    let named: Vec<String> = near.neighbours.iter().map(in_words).collect();
    let others = match near.others {
        0 => String::new(),
        others => format!(", and so do {}", count(u64::from(others), "other")),
    };
    let comm = &first.process.comm;
    (
        format!(" On the same port, {}{others}.", named.join(", ")),
        format!(
            "the address in fastcgi_pass or proxy_pass against the one that {comm} listens on, {}: they must be the same.",
            first.listens
        ),
    )
}

fn in_words(neighbour: &Neighbour) -> String {
    let Neighbour { process: Process { pid, comm }, listens, is_elsewhere } = neighbour;
    let elsewhere = if *is_elsewhere { " in another network namespace" } else { "" };
    format!("{comm} {pid} listens on {listens}{elsewhere}")
}

fn unix(near: &Near) -> Option<(String, String)> {
    let Neighbour { process: Process { pid, comm }, listens: _, is_elsewhere } = near.neighbours.first()?;
    Some(if *is_elsewhere {
        (
            format!(
                " {comm} {pid} listens at this path in another mount namespace: nginx does not see its file, or it began a moment later."
            ),
            format!(
                "PrivateTmp of nginx's and of {comm}'s unit, or their containers: the socket must be in a folder that both see, as /run."
            ),
        )
    } else {
        (
            format!(
                " {comm} {pid} listens on a socket of this name: its file was removed or replaced, or it began a moment later."
            ),
            format!(
                "what removes the socket's file while {comm} runs (a restart of {comm} makes it anew), or whether it was just being started."
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::samples::{at, connecting, reset_without_socket},
        near::asked,
    };

    fn said(neighbours: &[(&str, bool)], others: u32) -> String {
        let mut record = connecting(1, 111);
        record.nginx.reset = reset_without_socket();
        let mut joined = Exchange::new(&record);
        let neighbours = neighbours
            .iter()
            .map(|(listens, is_elsewhere)| Neighbour {
                process: Process { pid: 7, comm: "node".to_owned() },
                listens: Upstream::Inet(listens.parse().unwrap()),
                is_elsewhere: *is_elsewhere,
            })
            .collect();
        joined.near = Some(Near { ns: at(1), asked: asked(&joined), neighbours, others, closed: None });
        with(Finding::proven(Cause::RefusedNoListener, "", ""), &joined).explanation
    }

    #[test]
    fn who_listens_on_the_same_port_is_named() {
        assert_eq!(said(&[], 0), " Nothing on this host listens on port 19001, at any address.");
        assert_eq!(
            said(&[("127.0.0.2:19001", false), ("0.0.0.0:19001", true)], 2),
            " On the same port, node 7 listens on 127.0.0.2:19001, node 7 listens on 0.0.0.0:19001 in another network namespace, and \
             so do 2 others."
        );
        for there in ["127.0.0.1:19001", "0.0.0.0:19001"] {
            assert!(said(&[(there, false)], 0).contains("by now: it began a moment later"));
        }
        assert!(said(&[("[::]:19001", false)], 0).contains("On the same port"));
    }
}
