//! `client_abort`: the client went away, so nginx closed the upstream's connection too.
//!
//! nginx closes the upstream first and then the client's socket, whose client has closed or reset it. At one of
//! its own timeouts it answers the client instead, or tries the next upstream.

use super::{Cause, Finding, doing};
use crate::{ledger::Joined, words::span};

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    if exchange.nginx_closed_first() { of_client_that_left(exchange) } else { None }
}

/// The same, whether the upstream had closed or not.
pub(super) fn of_client_that_left(exchange: &Joined) -> Option<Finding> {
    if !exchange.client_had_left() {
        return None;
    }
    let after = span(exchange.lasted_ns());
    let phase = if exchange.was_connecting() {
        "while nginx was still connecting to the upstream"
    } else {
        "before the upstream had answered"
    };
    let finding = if exchange.nginx.received == 0 {
        Finding::proven(
            Cause::ClientAbortBefore,
            format!(
                "The client went away {after} into the exchange, {phase}, so nginx closed the upstream's connection.{}",
                doing::the_worker(exchange),
            ),
            "how long the client waits (its own timeout, or the one of a load balancer in front of nginx), \
             and why the upstream took longer.",
        )
    } else {
        Finding::proven(
            Cause::ClientAbortMid,
            format!(
                "The client went away {after} into the exchange, after {} bytes of the response, so nginx closed the \
                 upstream's connection.",
                exchange.nginx.received
            ),
            "the client: it stopped reading before the response was over.",
        )
    };
    // nginx asks the client's socket for its error and logs it.
    Some(if exchange.client_had_reset() { finding.met("ECONNRESET") } else { finding })
}
