//! `client_abort`: the client went away or cancelled its request, so nginx closed the upstream's connection too.
//!
//! What the client's own socket shows when nginx closes the exchange shows it: its end, its reset, or that nginx had just read from it.
//! Where nginx's word would have been heard and was not, nothing else can have been the reason.

use wire::nginx_flag;

use super::{Cause, Finding, doing};
use crate::{ledger::Exchange, model::words::span};

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if exchange.nginx_closed_first() { of_client(exchange) } else { None }
}

/// The same, whether the upstream had closed or not.
pub(super) fn of_client(exchange: &Exchange) -> Option<Finding> {
    of_client_that_left(exchange).or_else(|| of_client_that_stays(exchange))
}

/// The client, by its address where that is known.
pub(super) fn who(exchange: &Exchange) -> String {
    exchange.client().map_or_else(|| "The client".to_owned(), |client| format!("The client {client}"))
}

/// How far the exchange had got.
fn phase(exchange: &Exchange) -> String {
    if exchange.was_connecting() {
        "while nginx was still connecting to the upstream".to_owned()
    } else if exchange.nginx.received == 0 {
        "before the upstream had answered".to_owned()
    } else {
        format!("after {} bytes of the response", exchange.nginx.received)
    }
}

fn of_client_that_left(exchange: &Exchange) -> Option<Finding> {
    let left = exchange.client_had_left()?;
    let sentence = format!(
        "{} went away {} into the exchange, {}, so nginx closed the upstream's connection.",
        who(exchange),
        span(exchange.lasted_ns()),
        phase(exchange),
    );
    let finding = if exchange.nginx.received == 0 {
        Finding::proven(
            Cause::ClientAbortBefore,
            sentence + &doing::the_worker(exchange),
            "how long the client waits (its own timeout, or the one of a load balancer in front of nginx), \
             and why the upstream took longer.",
        )
    } else {
        Finding::proven(
            Cause::ClientAbortMid,
            sentence,
            "the client: it stopped reading before the response was over.",
        )
    };
    let finding = if left.is_seen { finding } else { finding.at_most_inferred() };
    // nginx asks the client's socket for its error and logs it.
    Some(if left.by_reset { finding.met("ECONNRESET") } else { finding })
}

/// Its connection was over for nginx, which had just read from it, and it had not left as far as its socket shows: it said goodbye over TLS, or
/// broke the rules of HTTP/2 where nginx does not wait for what may still come (`lingering_close off`).
pub(super) fn of_client_that_ends(exchange: &Exchange) -> Finding {
    let cause = if exchange.nginx.received == 0 { Cause::ClientAbortBefore } else { Cause::ClientAbortMid };
    Finding::inferred(
        cause,
        format!(
            "{} ended its connection {} into the exchange, {}: what nginx had just read from it was a goodbye, or nothing that it could \
             go on after, and it closed the upstream's connection with it.{}",
            who(exchange),
            span(exchange.lasted_ns()),
            phase(exchange),
            doing::the_worker(exchange),
        ),
        "how long the client waits, and why the upstream took longer; nginx's error log at level info says how the client ended.",
    )
}

/// nginx read from its connection and closed the exchange. A request that it refuses for what it read, it answers, and closes the connection.
fn of_client_that_stays(exchange: &Exchange) -> Option<Finding> {
    let is_cancelled = exchange.word().is_none()
        && exchange.client_had_it_closed()
        && !exchange.client_was_refused()
        && !exchange.client_was_closed()
        && !exchange.client_was_given_up()
        && !is_refused(exchange)
        && !is_reset(exchange);
    is_cancelled.then(|| {
        let finding = Finding::proven(
            Cause::ClientCancelled,
            format!(
                "{} cancelled this request {} into the exchange, {}, and stayed connected: nginx had just read from its \
                 connection, and closed the upstream's.{}",
                who(exchange),
                span(exchange.lasted_ns()),
                phase(exchange),
                doing::the_worker(exchange),
            ),
            "what the client no longer wanted (a page that was left, a video that was skipped, a gRPC deadline), and why the \
             upstream took longer.",
        );
        // What is cancelled has no answer. This one may be another's, or the client sent what HTTP/2 forbids.
        // Nor was it that read if nginx had waited for something since.
        let is_sure = !exchange.client_was_answered()
            && !exchange.has(nginx_flag::CLIENT_UNTOLD)
            && !exchange.has(nginx_flag::NOTHING_READ);
        if is_sure { finding } else { finding.at_most_inferred() }
    })
}

/// Whether nginx reset the client's stream over what it had just read, and kept the connection (HTTP/2): what the client cancels, it does not.
pub(super) fn is_reset(exchange: &Exchange) -> bool {
    exchange.is_silent() && exchange.client_had_it_closed() && exchange.client_was_sent_a_reset()
}

/// Whether nginx answered the client in place of a request whose body it had not read to its end, and kept the connection (HTTP/2).
pub(super) fn is_refused(exchange: &Exchange) -> bool {
    exchange.is_silent()
        && exchange.client_had_it_closed()
        && exchange.client_was_answered()
        && exchange.has(nginx_flag::REQUEST_UNDER_WAY)
}
