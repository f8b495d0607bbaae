//! `client_error`: the client's own fault, while nginx had an exchange for it.
//!
//! Of a body that is too large or has an invalid chunk nginx says so at level error ([`super::nginx_says`]); of the rest at info, or nothing
//! (`ngx_http_upstream_read_request_handler`, src/http/ngx_http_upstream.c). So these are known by nginx's silence, and by what set it off.

use super::{
    Cause, Finding,
    client_abort::{is_refused, who},
};
use crate::{
    ledger::Joined,
    words::{count, span},
};

pub(super) fn of_client(exchange: &Joined) -> Option<Finding> {
    invalid_body(exchange).or_else(|| not_reading(exchange)).or_else(|| body_timeout(exchange))
}

/// nginx read from the client, closed the exchange, answered the client and closed its connection, unless that has other requests (HTTP/2).
fn invalid_body(exchange: &Joined) -> Option<Finding> {
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
fn not_reading(exchange: &Joined) -> Option<Finding> {
    let is_blocked = exchange.has(tracer_ebpf::nginx_flag::CLIENT_BLOCKED);
    let is_stuck = exchange.was_timed_with_client()
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

/// nginx waits for the rest of the request's body while it passes on what has come (`proxy_request_buffering off`).
fn body_timeout(exchange: &Joined) -> Option<Finding> {
    let is_timed = exchange.was_timed_with_client() && exchange.arrived() == 0 && exchange.nginx.sent > 0;
    is_timed.then(|| {
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
