//! Silence as evidence: nginx closed the connection, and said nothing that would have been heard.
//!
//! nginx says a word at level error about each failure of an upstream. So what it ended without one did not fail by the upstream: the client
//! left, or nginx had what it wanted (X-Accel-Redirect, intercepted errors, the answer to `auth_request`), or the connection was idle.

use wire::{nginx_flag, tcp_state};

use super::{Finding, client_abort, client_error, nginx_exit, signals, upgraded};
use crate::ledger::Exchange;

/// What the silence says; none where nothing can be made of it, and the kernel's facts decide.
pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if !exchange.is_silent() || exchange.has(nginx_flag::CLOSER_EXITING) {
        return None;
    }
    if let Some(finding) = upgraded::judge(exchange) {
        return Some(finding);
    }
    // What connect fails with is said only after this end has ended, maybe.
    if exchange.nginx.error != 0 && exchange.was_connecting() || exchange.failed_at_once() {
        return None;
    }
    if exchange.nginx.error == 0 && !exchange.has(nginx_flag::END_READ) {
        // Also of one that the upstream had closed, which nginx had not come to.
        let found = nginx_exit::of_shutdown(exchange)
            .or_else(|| client_error::of_connection(exchange))
            .or_else(|| client_abort::of_client(exchange))
            .or_else(|| client_error::of_client(exchange));
        if found.is_some() {
            return found;
        }
    }
    // Its client was there, and got nothing: nobody wanted that, unless nginx itself had to go (worker_shutdown_timeout).
    if exchange.nginx.error == 0 && exchange.arrived() == 0 && exchange.nginx_answered_no_more() {
        return None;
    }
    // A response may end with its connection: that its worker was killed before it was whole, nginx does not see.
    let is_upstreams = exchange.nginx.old_state == tcp_state::CLOSE_WAIT;
    let is_killed = exchange.worker.as_ref().is_some_and(|worker| signals::died_of(worker).is_some());
    (!is_upstreams || !is_killed).then(Finding::well)
}

/// Whether nginx ended it before it had read all of a response that had come.
pub(super) fn is_early(exchange: &Exchange) -> bool {
    exchange.has_request()
        && exchange.nginx.sent > 0
        && (!exchange.has(nginx_flag::READ_LAST) || exchange.nginx.unread > 0)
}
