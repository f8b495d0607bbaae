//! `unknown`: an honest answer.

use super::{Cause, Finding};
use crate::{ledger::Exchange, model::words::span};

pub(super) fn judge(exchange: &Exchange, evidence_lost: bool) -> Finding {
    if exchange.is_connected() && exchange.nginx_closed_first() && exchange.nginx.sent == 0 {
        // Nothing was asked on this connection.
        return Finding::well();
    }
    let after = span(exchange.lasted_ns());
    if evidence_lost {
        return Finding::inferred(
            Cause::EvidenceLost,
            format!(
                "The exchange with {} ended after {after} without an answer, and facts that would tell why were lost.",
                exchange.upstream()
            ),
            "the count of lost records in the summary.",
        );
    }
    Finding::inferred(
        Cause::NotEnoughFacts,
        format!(
            "The exchange with {} ended after {after}, and the facts seen do not tell why.",
            exchange.upstream()
        ),
        "nginx's error log for this moment; `-v` shows the facts.",
    )
}

/// The host has more listeners than are kept in sight, and the upstream's may be one of the others.
pub(super) fn left_out(exchange: &Exchange) -> Finding {
    Finding::proven(
        Cause::EvidenceLost,
        format!(
            "The exchange with {} ended after {}. This host has more listeners than why502 keeps in sight, and how full the \
             accept queue there was had yet to be looked up: that may be the reason, or not.",
            exchange.upstream(),
            span(exchange.lasted_ns())
        ),
        "`ss -ltn` for its listener's queue, and who opens listeners by the thousand; the next failure there is looked at from its beginning.",
    )
}

/// Someone took the connection and closed it without reading from it, or died: who, and which of the two, is not seen where accepts
/// and closes of unix sockets are not.
pub(super) fn unseen(exchange: &Exchange) -> Finding {
    Finding::inferred(
        Cause::NotEnoughFacts,
        format!(
            "A worker of {} accepted the connection and never read from it. {} later its end was closed; who that was, and \
             whether it chose to or died, is not seen on this kernel.",
            exchange.upstream(),
            span(exchange.lasted_ns())
        ),
        "the upstream's log: a crash, a kill or a reload at that moment.",
    )
}
