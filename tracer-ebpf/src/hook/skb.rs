//! Hooks of packets (net/core/skbuff.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{packet_drop, preemption::Undisturbed};

/// `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, ...)`; the reason since 5.17. Not called
/// for packets that are consumed, a SYN dropped at a full accept queue among them.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    packet_drop::dropped(ctx.arg(0), ctx.arg::<u64>(2) as u32);
    0
}
