//! `send_timeout`: the upstream stopped reading the request.

use tracer_ebpf::nginx_flag;

use super::{Cause, Finding, doing, signals};
use crate::{
    ledger::Joined,
    words::{count, span},
};

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    let nginx = &exchange.nginx;
    let worker = exchange.worker.as_ref()?;
    let gave_up = exchange.is_connected() && exchange.nginx_closed_first() && exchange.nginx_went_on();
    // More was sent than arrived, and what arrived lies unread: the window was shut.
    let is_stuck = exchange.has(nginx_flag::SEND_BLOCKED)
        && nginx.unacked > 0
        && worker.unread > 0
        && nginx.received == 0;
    if !gave_up || !is_stuck || exchange.has(nginx_flag::READ_LAST) || !exchange.was_accepted() {
        return None;
    }
    Some(
        Finding::proven(
            Cause::SendTimeout,
            format!(
                "The {} stopped reading the request: {} lay unread in its socket, {} more could not be delivered, and nginx \
                 gave up {} after it last could send.{}",
                signals::worker_in_words(worker),
                count(u64::from(worker.unread), "byte"),
                count(u64::from(nginx.unacked), "byte"),
                span(nginx.ended_ns.saturating_sub(nginx.last_sent_ns)),
                doing::the_worker(exchange),
            ),
            "what keeps the worker from reading; then proxy_send_timeout or fastcgi_send_timeout.",
        )
        .logged("ETIMEDOUT", "upstream timed out (110: Connection timed out) while sending request to upstream"),
    )
}
