//! Where nginx's word cannot be heard: what nginx did next stands in for it, and proves nothing.

use wire::{nginx_flag, tcp_state};

use super::Finding;
use crate::{ledger::Exchange, model::verdict::Confidence};

/// Why nginx closed of its own accord is known from what it said, or from its silence. Else it is an inference, whatever the finding.
pub(super) fn is_inferred(exchange: &Exchange, finding: &Finding) -> bool {
    // One that the upstream had closed, too, if nginx left something unread.
    let is_upstreams = exchange.nginx.old_state == tcp_state::CLOSE_WAIT && exchange.nginx.unread == 0;
    let is_by_choice = exchange.nginx.error == 0 && !is_upstreams && !exchange.failed_at_once();
    finding.confidence == Confidence::Proven
        && is_by_choice
        && exchange.word().is_none()
        && !exchange.has(nginx_flag::CLOSER_EXITING)
        && !exchange.is_silent()
}
