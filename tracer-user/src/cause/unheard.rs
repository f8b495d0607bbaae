//! Where nginx's word cannot be heard: what nginx did next stands in for it, and proves nothing.

use tracer_ebpf::nginx_flag;

use super::Finding;
use crate::{ledger::Joined, verdict::Confidence};

/// Why nginx closed of its own accord is known from what it said, or from its silence. Else it is an inference, whatever the finding.
pub(super) fn is_inferred(exchange: &Joined, finding: &Finding) -> bool {
    let is_by_choice = exchange.nginx_closed_first() && !exchange.failed_at_once();
    finding.confidence == Confidence::Proven
        && is_by_choice
        && exchange.word().is_none()
        && !exchange.has(nginx_flag::CLOSER_EXITING)
        && !exchange.is_silent()
}
