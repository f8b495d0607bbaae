//! `rejected_response`: nginx itself ended the exchange over what it had read.

use wire::tcp_state;

use super::{Cause, Finding};
use crate::{
    ledger::Exchange,
    model::words::{count, span},
};

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    let nginx = &exchange.nginx;
    // Closing with bytes unread leaves ESTABLISHED or CLOSE_WAIT straight for CLOSE, with a reset outward.
    let threw_away = nginx.error == 0 && nginx.new_state == tcp_state::CLOSE && nginx.unread > 0;
    // What nginx says of it names what it would not accept.
    if exchange.was_connecting() || !threw_away || nginx.received == 0 || exchange.word().is_some() {
        return None;
    }
    // On a unix socket the kernel does not count bytes.
    let unread = match exchange.path {
        None => count(u64::from(nginx.unread), "byte"),
        Some(_) => "more".to_owned(),
    };
    // A client that is too slow for nginx's patience makes it close so, too, but is not answered.
    exchange.nginx_gave_up().then(|| Finding {
        error_log: Some("upstream sent too big header while reading response header from upstream".to_owned()),
        ..Finding::proven(
            Cause::RejectedResponse,
            format!(
                "nginx read {} of the response, {} after it began to arrive, and closed the connection with {unread} unread: \
                 it would not accept what it had read.",
                count(nginx.received, "byte"),
                span(nginx.ended_ns.saturating_sub(nginx.first_received_ns)),
            ),
            "fastcgi_buffer_size or proxy_buffer_size, if the header (cookies, mostly) is larger; else nginx's error log \
             names what is invalid.",
        )
    })
}
