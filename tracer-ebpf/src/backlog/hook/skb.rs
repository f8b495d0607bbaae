//! Hooks of packets (net/core/skbuff.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use wire::MISSING;

use crate::{
    backlog::packet,
    kernel::{preemption::Undisturbed, read::layout},
};

/// `consume_skb(struct sk_buff *skb, void *location)`; the location since 6.3. Called for every packet whose end is no drop, a SYN
/// dropped at a full accept queue among them.
#[raw_tracepoint(tracepoint = "consume_skb")]
pub fn consume_skb(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    packet::consumed(ctx.arg(0), ctx.arg(1));
    0
}

/// `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, struct sock *rx_sk)`; the reason since 5.17, the
/// socket since 6.11.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    let sock = if layout!(drop_socket_arg) == MISSING { 0 } else { ctx.arg(3) };
    let reason = if layout!(drop_reason_arg) == MISSING { MISSING } else { ctx.arg::<u64>(2) as u32 };
    packet::dropped(ctx.arg(0), reason, sock);
    0
}
