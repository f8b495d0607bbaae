//! `nginx_exit`: the nginx worker itself ended while the exchange was under way.

use wire::nginx_flag;

use super::{Cause, Finding, signals};
use crate::{ledger::Exchange, model::words::span};

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    let is_exiting = exchange.has(nginx_flag::CLOSER_EXITING);
    // Told to quit, it closes what is idle before all else (`ngx_close_idle_connections`, src/core/ngx_connection.c).
    let is_leaving = is_exiting || exchange.has(nginx_flag::SHUTTING_DOWN) && exchange.nginx_closed_first();
    // An idle or answered connection that it closes is no failure, unless it says so.
    let is_answered = exchange.word().is_none()
        && exchange.has(nginx_flag::READ_LAST)
        && (is_exiting || exchange.nginx.unread == 0);
    if is_leaving && is_answered || is_exiting && exchange.is_connected() && exchange.nginx.sent == 0 {
        return Some(Finding::well());
    }
    if !is_exiting {
        return None;
    }
    let pid = exchange.nginx.nginx.tgid;
    let after = span(exchange.lasted_ns());
    let signal = exchange.nginx.exit_code & 0x7f;
    Some(if signal == 0 {
        Finding::proven(
            Cause::NginxExited,
            format!("The nginx worker {pid} exited {after} into the exchange, before the upstream answered."),
            "worker_shutdown_timeout, if this was a reload.",
        )
    } else {
        Finding::proven(
            Cause::NginxKilled,
            format!(
                "The nginx worker {pid} was ended by {} {after} into the exchange, before the upstream answered.",
                signals::name(signal)
            ),
            "who signals or crashes nginx's workers: its error log at level alert.",
        )
    })
}

/// `worker_shutdown_timeout`: the worker closes each client's connection (`ngx_shutdown_timer_handler`, src/core/ngx_cycle.c), and with it the
/// exchange for it. It says nothing.
pub(super) fn of_shutdown(exchange: &Exchange) -> Option<Finding> {
    let is_shut = exchange.has(nginx_flag::SHUTTING_DOWN)
        && exchange.was_timed_with_client()
        && exchange.client_was_closed()
        && !exchange.may_have_been_answered();
    is_shut.then(|| {
        Finding::proven(
            Cause::NginxShutdownTimeout,
            format!(
                "The nginx worker {} had been told to quit (a reload or a stop), waited for what was under way, and closed this \
                 exchange and its client's connection {} into it.",
                exchange.nginx.nginx.tgid,
                span(exchange.lasted_ns())
            ),
            "worker_shutdown_timeout is how long it waits; why the exchange takes longer, the upstream knows.",
        )
    })
}
