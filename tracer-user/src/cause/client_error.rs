//! `client_error`: the client's own fault, while nginx had an exchange for it.
//!
//! Of a body that is too large or has an invalid chunk nginx says so at level error ([`super::nginx_says`]); of the rest at info, or nothing
//! (`ngx_http_upstream_read_request_handler`, src/http/ngx_http_upstream.c). So these are known by nginx's silence, and by what set it off.

use wire::nginx_flag;

use super::{
    Cause, Finding,
    client_abort::{self, is_refused, is_reset, who},
};
use crate::{
    ledger::Exchange,
    model::words::{count, span},
};

/// nginx was done with the client's whole connection, and each exchange for it ended with that.
pub(super) fn of_connection(exchange: &Exchange) -> Option<Finding> {
    if !exchange.client_was_given_up() {
        return None;
    }
    let is_read = exchange.has(nginx_flag::CLIENT_READ);
    if exchange.client_was_refused() {
        let finding =
            http2_error(exchange, "gave up the client's connection with all that was under way on it");
        // What it had read in between may have been what set it off.
        return Some(if is_read { finding } else { finding.at_most_inferred() });
    }
    if is_read {
        return Some(client_abort::of_client_that_ends(exchange));
    }
    exchange.has(nginx_flag::CLIENT_BLOCKED).then(|| stuck(exchange))
}

fn http2_error(exchange: &Exchange, then: &str) -> Finding {
    Finding::proven(
        Cause::ClientHttp2Error,
        format!(
            "{} broke the rules of HTTP/2 {} into the exchange: nginx had just read from it, closed the upstream's connection, and {then}.",
            who(exchange),
            span(exchange.lasted_ns()),
        ),
        "the client, or what stands between it and nginx. nginx's error log at level info says which rule (client sent ..., client \
         violated ...).",
    )
}

pub(super) fn of_client(exchange: &Exchange) -> Option<Finding> {
    let timed = || {
        let finding = not_reading(exchange).or_else(|| body_timeout(exchange))?;
        // It may have slept for another reason than to wait for its timer.
        Some(if exchange.has(nginx_flag::CLIENT_UNTOLD) { finding.at_most_inferred() } else { finding })
    };
    reset(exchange).or_else(|| invalid_body(exchange)).or_else(timed)
}

/// nginx read from the client, closed the exchange, and reset its stream: a body that is not as long as it was to be, or what breaks the rules
/// for this stream only.
fn reset(exchange: &Exchange) -> Option<Finding> {
    is_reset(exchange).then(|| {
        http2_error(exchange, "reset the request's stream, but kept the client's connection")
            .at_most_inferred()
    })
}

/// nginx read from the client, closed the exchange, answered the client and closed its connection, unless that has other requests (HTTP/2).
fn invalid_body(exchange: &Exchange) -> Option<Finding> {
    let is_closed = exchange.client_had_it_closed() && exchange.client_was_refused();
    (is_closed || is_refused(exchange)).then(|| {
        let then = if is_closed {
            ", answered the client with an error and closed its connection, too."
        } else {
            " and answered the client, though it had not read all of the body."
        };
        Finding::inferred(
            Cause::ClientBodyInvalid,
            format!(
                "{} sent what nginx would not pass on as the request's body, {} into the exchange: nginx had just read it, \
                 closed the upstream's connection{then}",
                who(exchange),
                span(exchange.lasted_ns()),
            ),
            "the client: how it makes its requests' bodies (chunks, lengths). nginx's error log at level info says what is wrong.",
        )
    })
}

/// Its own socket is full, or nginx had taken no more of the response for want of room.
fn not_reading(exchange: &Exchange) -> Option<Finding> {
    let is_blocked = exchange.has(nginx_flag::CLIENT_BLOCKED);
    let is_stuck = exchange.was_timed_with_client()
        && !exchange.has(nginx_flag::UNTIMED)
        && !exchange.has(nginx_flag::BODY_TIMED)
        && exchange.arrived() > 0
        && (exchange.nginx.unread > 0 || is_blocked && exchange.client_was_closed());
    is_stuck.then(|| {
        let how = if is_blocked {
            "its connection had no room for more".to_owned()
        } else {
            "its connection took no more of this response".to_owned()
        };
        Finding::proven(
            Cause::ClientNotReading,
            format!(
                "{} stopped reading the response: nginx had read {} of it from the upstream, {how}, and nginx stopped waiting \
                 {} into the exchange.",
                who(exchange),
                count(exchange.nginx.received, "byte"),
                span(exchange.lasted_ns()),
            ),
            "the client, or the network to it; send_timeout is how long nginx waits for it.",
        )
    })
}

/// Its connection, which it shares with other requests, took no more of what nginx had for it, and nginx gave it up.
fn stuck(exchange: &Exchange) -> Finding {
    Finding::proven(
        Cause::ClientNotReading,
        format!(
            "{} stopped reading: its connection had no room for more of what nginx had for it, of this response or of another, and {} into \
             the exchange nginx gave the connection up, with all that was under way on it.",
            who(exchange),
            span(exchange.lasted_ns()),
        ),
        "the client, or the network to it; send_timeout is how long nginx waits for it.",
    )
}

/// nginx waits for the rest of the request's body while it passes on what has come (`proxy_request_buffering off`).
fn body_timeout(exchange: &Exchange) -> Option<Finding> {
    let is_timed = exchange.was_timed_with_client()
        && !exchange.has(nginx_flag::UNTIMED)
        && !exchange.client_was_given_up()
        && exchange.arrived() == 0
        && exchange.nginx.sent > 0;
    let is_seen = exchange.is_silent()
        && exchange.has(nginx_flag::BODY_TIMED)
        && exchange.client_is_there()
        && !exchange.client_was_given_up();
    (is_timed || is_seen).then(|| {
        Finding::proven(
            Cause::ClientBodyTimeout,
            format!(
                "{} stopped sending its request's body: nginx had passed {} on, nothing more came, and nginx stopped waiting {} \
                 into the exchange.",
                who(exchange),
                count(exchange.nginx.sent, "byte"),
                span(exchange.lasted_ns()),
            ),
            "the client, or the network to it; client_body_timeout is how long nginx waits for it.",
        )
    })
}
