//! Several listeners that share an address (`SO_REUSEPORT`): the kernel gives each connection to one of them, and moves none to another.

use super::Finding;
use crate::{
    ledger::Exchange,
    model::{inquiry::Sharer, words::count},
};

/// The same finding where only one of them had connections in its queue: this one's was there, and the others accept.
pub(super) fn add(exchange: &Exchange, finding: Finding) -> Finding {
    let sharers = exchange.sharers();
    let [Sharer { process, waiting: 1.., stands_still }, others @ ..] = sharers else { return finding };
    if others.is_empty() || others.iter().any(|other| other.waiting > 0) {
        return finding;
    }
    let (comm, pid) = (&process.comm, process.pid);
    let still = if *stands_still { ", which stands still (stopped or frozen)" } else { "" };
    let shared = count(sharers.len() as u64, "listener");
    Finding {
        explanation: format!(
            "{} Of {shared} that share this address (SO_REUSEPORT) it waited in that of {comm} {pid}{still}: that one does not accept, and \
             the queues of the others are empty.",
            finding.explanation
        ),
        advice: format!(
            "what {comm} {pid} does, and why it accepts nothing: the others on this address do, and the kernel hands none of its \
             connections to them. The request still waits there and may be executed later, for nobody."
        ),
        ..finding
    }
}
