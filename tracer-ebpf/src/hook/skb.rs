//! Hooks of packets (net/core/skbuff.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{copies::in_copies, packet_drop};

/// Marks this event among those that copies see ([`crate::copies`]).
const DROPPED: u64 = 1 << 51;

in_copies! {
    /// `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, ...)`; the reason since 5.17. Not called
    /// for packets that are consumed, a SYN dropped at a full accept queue among them.
    "kfree_skb": kfree_skb, kfree_skb_2, kfree_skb_3;
    |ctx| (ctx.arg::<u64>(0), DROPPED) => packet_drop::dropped(ctx.arg(0), ctx.arg::<u64>(2) as u32)
}
