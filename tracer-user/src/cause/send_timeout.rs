//! `send_timeout`: the upstream stopped reading the request.

use wire::{WorkerEnd, nginx_flag};

use super::{Cause, Finding, doing, signals};
use crate::{
    ledger::Exchange,
    model::words::{count, span},
};

const LINE: &str = "upstream timed out (110: Connection timed out) while sending request to upstream";
const ADVICE: &str = "what keeps the worker from reading; then proxy_send_timeout or fastcgi_send_timeout.";

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    let nginx = &exchange.nginx;
    let worker = exchange.worker.as_ref()?;
    let gave_up = exchange.is_connected() && exchange.nginx_closed_first() && exchange.nginx_gave_up();
    if exchange.path.is_some() && gave_up && exchange.was_accepted() {
        return on_unix_socket(exchange, worker);
    }
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
            ADVICE,
        )
        .logged("ETIMEDOUT", LINE),
    )
}

/// The kernel does not count what lies in a unix socket; nginx says that it was sending.
fn on_unix_socket(exchange: &Exchange, worker: &WorkerEnd) -> Option<Finding> {
    let was_sending = exchange.word()?.doing == "sending request to upstream";
    was_sending.then(|| {
        Finding::proven(
            Cause::SendTimeout,
            format!(
                "The {} stopped reading the request, and nginx gave up {} after it last could send.{}",
                signals::worker_in_words(worker),
                span(exchange.nginx.ended_ns.saturating_sub(exchange.nginx.last_sent_ns)),
                doing::the_worker(exchange),
            ),
            ADVICE,
        )
        .logged("ETIMEDOUT", LINE)
    })
}
