//! What the upstream sent and nginx's socket never had, or not whole: a gap in what came, or packets that this host refused or dropped.

use wire::{DropReason, PacketDrop, nginx_flag};

use super::dropped;
use crate::{
    ledger::Exchange,
    model::{
        verdict::Confidence,
        words::{count, span},
    },
};

/// A rule that rejects answers at once: so close is its drop to the reset (ns).
const AT_ONCE_NS: u64 = 10_000_000;

pub(super) const ADVICE_OF_REFUSAL: &str = "connection tracking on this host: a packet that it takes for INVALID is not translated back, and \
                                            then meets no socket (`conntrack -S`). A rule that drops what is INVALID, or \
                                            net.netfilter.nf_conntrack_tcp_be_liberal, keeps such a connection alive.";

const ADVICE_OF_RULE: &str =
    "the rule: `nft list ruleset`, one that matches what the upstream sends on a connection that is made.";

const ADVICE_OF_PATH: &str = "the path from the upstream to nginx: packets that are larger than a link's MTU and whose sender is never told \
                              (`tracepath`, `tcpdump` on both hosts; clamping the MSS helps), or plain loss.";

/// What is known of it.
pub(super) struct Lost {
    /// A clause that says what happened.
    pub(super) what: String,
    /// Where to look.
    pub(super) advice: &'static str,
    /// How sure it is that this is why nginx had no answer.
    pub(super) confidence: Confidence,
}

/// Whether, and how, what the upstream sent was lost on its way to nginx's socket.
pub(super) fn of(exchange: &Exchange) -> Option<Lost> {
    let nginx = &exchange.nginx;
    let reset_by_us = exchange.worker.as_ref().is_some_and(|worker| worker.error != 0);
    if nginx.refused_ns != 0 {
        return Some(Lost {
            what: format!(
                "{} before, this host answered the upstream's next packet with a reset, because no socket took it, though nginx's was \
                 open: so the upstream's end is gone, and nginx was never told",
                span(nginx.ended_ns.saturating_sub(nginx.refused_ns))
            ),
            advice: ADVICE_OF_REFUSAL,
            confidence: if reset_by_us { Confidence::Proven } else { Confidence::Inferred },
        });
    }
    let undelivered = undelivered(exchange);
    if nginx.gap == 0 && undelivered.is_none() && nginx.lost_in.packets < 2 {
        return None;
    }
    let came = match (nginx.gap, undelivered) {
        (0, None) => None,
        (0, Some((sent, came))) => {
            Some(format!("the worker had sent {}, of which {came} had come", count(sent, "byte")))
        }
        (gap, _) => Some(format!(
            "later bytes came, earlier ones did not: from the first that is missing to the last that came there are {gap}"
        )),
    };
    let (fate, advice) = match nginx.lost_in.why() {
        Some(reason) => {
            let packets = count(u64::from(nginx.lost_in.packets), "packet");
            let by = match reason {
                DropReason::Netfilter => "a netfilter rule".to_owned(),
                DropReason::ReversePath => "reverse path filtering".to_owned(),
                other => dropped::by(other).unwrap_or("its kernel").to_owned(),
            };
            let fate = format!(
                "on this host, {packets} of what comes next {} dropped by {by} ({})",
                were(&nginx.lost_in),
                reason.kernel_name()
            );
            let advice = match reason {
                DropReason::Netfilter => ADVICE_OF_RULE,
                DropReason::TooBig => ADVICE_OF_PATH,
                other => dropped::advice(other),
            };
            (Some(fate), advice)
        }
        None => (None, ADVICE_OF_PATH),
    };
    let is_sure = came.is_some() && fate.is_some();
    Some(Lost {
        what: [came, fate].into_iter().flatten().collect::<Vec<_>>().join("; "),
        advice,
        confidence: if is_sure { Confidence::Proven } else { Confidence::Inferred },
    })
}

fn were(lost: &PacketDrop) -> &'static str {
    if lost.packets == 1 { "was" } else { "were" }
}

/// What the worker's end, which is on this host, has sent again and again beyond what came to nginx's: all of it, and how much of it came,
/// where a FIN counts as a byte. What it has sent only once may be on its way.
fn undelivered(exchange: &Exchange) -> Option<(u64, u64)> {
    let worker = exchange.worker.as_ref().filter(|_| exchange.path.is_none())?;
    let came = exchange.nginx.arrived;
    (worker.sent > came && exchange.nginx.worker_retransmits > 0).then_some((worker.sent, came))
}

/// How long before the end a netfilter rule of this host dropped what nginx sent, if it may have answered that with the reset that ended the
/// connection (`nf_send_reset`, from which the packet then goes to `kfree_skb`).
pub(super) fn rejected(exchange: &Exchange) -> Option<u64> {
    let nginx = &exchange.nginx;
    let lost = &nginx.lost_out;
    let before_ns = nginx.ended_ns.checked_sub(lost.ns)?;
    let is_rule = lost.why() == Some(DropReason::Netfilter);
    (is_rule && exchange.has(nginx_flag::RESET_RECEIVED) && before_ns <= AT_ONCE_NS).then_some(before_ns)
}

/// Whether nginx's own host had a hand in the reset that nginx met.
pub(super) fn is_own_reset(exchange: &Exchange) -> bool {
    let is_reset = exchange.has(nginx_flag::RESET_RECEIVED) && exchange.nginx.established_ns != 0;
    is_reset && (rejected(exchange).is_some() || exchange.nginx.refused_ns != 0)
}
