//! Whether an upstream that nothing answers for was reached before, and until when: a container that moved, a host that went away.

use std::net::SocketAddr;

use super::{Cause, Finding};
use crate::{
    ledger::{Exchange, Said},
    model::{
        upstream::Upstream,
        verdict::{self, Evidence, ReachedBy},
        words::span,
    },
};

/// When it was last reached (ns, monotonic), and who knows that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) ns: u64,
    pub(super) by: ReachedBy,
    pub(super) upstream: SocketAddr,
}

impl Reached {
    /// The fact, in microseconds from the moment at which nginx asked.
    pub(super) fn evidence(&self, asked_ns: u64) -> Evidence {
        let fact = match self.by {
            ReachedBy::Exchange => format!("an exchange of nginx's has a connection to {}", self.upstream),
            ReachedBy::TcpMetrics => {
                format!("a TCP connection with {} works, as the kernel remembers", self.upstream.ip())
            }
        };
        Evidence { us: of_verdict(*self, asked_ns).us, source: self.by.name().to_owned(), fact }
    }
}

/// Whether it concerns a cause at all.
fn is_asked(cause: Option<Cause>) -> bool {
    matches!(cause, Some(Cause::RefusedNoRoute | Cause::ConnectSynUnanswered | Cause::KernelSynRetries))
}

/// The later of what nginx's own exchanges and the kernel's memory say.
pub(super) fn of(exchange: &Exchange, cause: Option<Cause>) -> Option<Reached> {
    let Upstream::Inet(upstream) = exchange.upstream() else { return None };
    if !is_asked(cause) {
        return None;
    }
    let by_exchange = exchange.reached_ns.map(|ns| Reached { ns, by: ReachedBy::Exchange, upstream });
    let by_kernel = exchange.worked_ns().map(|ns| Reached { ns, by: ReachedBy::TcpMetrics, upstream });
    // An exchange of nginx's is about the very port.
    by_exchange.into_iter().chain(by_kernel).reduce(|one, other| if other.ns > one.ns { other } else { one })
}

/// The same of a connect that failed at once, by nginx's word alone.
pub(super) fn of_word(said: &Said, cause: Option<Cause>) -> Option<Reached> {
    let Some(Upstream::Inet(upstream)) = said.peer() else { return None };
    let ns = said.reached_ns().filter(|_| is_asked(cause))?;
    Some(Reached { ns, by: ReachedBy::TcpMetrics, upstream })
}

/// The same finding, with that; `asked_ns` is when nginx asked.
pub(super) fn with(finding: Finding, reached: Option<Reached>, asked_ns: u64) -> Finding {
    let Some(Reached { ns, by, upstream }) = reached else { return finding };
    let who = match by {
        ReachedBy::Exchange => format!("an exchange of nginx's had a connection to {upstream}"),
        ReachedBy::TcpMetrics => format!(
            "a TCP connection between this host and {} worked, as the kernel remembers",
            upstream.ip()
        ),
    };
    if ns >= asked_ns {
        let after = span(ns - asked_ns);
        return Finding {
            explanation: format!(
                "{} {after} after nginx had asked, {who}: its host is not gone.",
                finding.explanation
            ),
            ..finding
        };
    }
    Finding {
        explanation: format!(
            "{} It was reached before: until {} before nginx asked, {who}.",
            finding.explanation,
            span(asked_ns - ns)
        ),
        advice: format!(
            "whether the upstream has moved or ended since: a container or pod that begins anew mostly has another address, and nginx asks \
             for a name's address once, when it reads its configuration; then {}",
            finding.advice
        ),
        ..finding
    }
}

/// As a verdict has it, in microseconds from the moment at which nginx asked.
pub(super) fn of_verdict(reached: Reached, asked_ns: u64) -> verdict::Reached {
    let ns = i128::from(reached.ns) - i128::from(asked_ns);
    verdict::Reached { us: i64::try_from(ns / 1_000).unwrap_or(i64::MIN), by: reached.by }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::samples::{at, connecting},
        model::inquiry::Found,
    };

    fn exchange(reached_ms: Option<u64>, worked_ms: Option<u64>) -> Exchange {
        let mut joined = Exchange::new(&connecting(5_000, 0));
        joined.reached_ns = reached_ms.map(at);
        joined.found = worked_ms.map(|ms| Found::Reached(at(ms)));
        joined
    }

    fn found(reached_ms: Option<u64>, worked_ms: Option<u64>) -> Finding {
        let exchange = exchange(reached_ms, worked_ms);
        let finding = Finding::inferred(Cause::ConnectSynUnanswered, "Nothing answered.", "the host.");
        with(finding, of(&exchange, Some(Cause::ConnectSynUnanswered)), at(3_000))
    }

    #[test]
    fn the_later_of_both_is_reported_and_neither_says_nothing() {
        assert_eq!(found(None, None).explanation, "Nothing answered.");
        let by_exchange = found(Some(2_000), Some(1_000));
        assert!(by_exchange.explanation.contains("until 1.00 s before nginx asked, an exchange of nginx's"));
        assert!(by_exchange.advice.contains("has moved") && by_exchange.advice.ends_with("then the host."));
        let by_kernel = found(Some(500), Some(1_000));
        assert!(by_kernel.explanation.contains("until 2.00 s before nginx asked, a TCP connection"));
    }

    #[test]
    fn what_worked_meanwhile_has_not_moved() {
        let meanwhile = found(None, Some(3_500));
        assert!(
            meanwhile.explanation.contains("500 ms after nginx had asked, a TCP connection"),
            "{meanwhile:?}"
        );
        assert_eq!(meanwhile.advice, "the host.");
    }

    #[test]
    fn no_other_cause_is_given_it() {
        assert_eq!(of(&exchange(Some(1), Some(2)), Some(Cause::RefusedNoListener)), None);
    }
}
