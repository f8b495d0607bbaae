//! Hooks of packets (net/core/skbuff.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{kernel::standby::with_standby, live::explain::drops};

/// Marks this event among those that standby instances see ([`crate::kernel::standby`]).
const DROPPED: u64 = 1 << 51;

with_standby! {
    /// `kfree_skb(struct sk_buff *skb, void *location, enum skb_drop_reason reason, ...)`; the reason since 5.17. Not called
    /// for packets that are consumed, a SYN dropped at a full accept queue among them.
    "kfree_skb": kfree_skb, kfree_skb_body, kfree_skb_1, kfree_skb_2, kfree_skb_3;
    |ctx| (ctx.arg::<u64>(0), DROPPED) => drops::dropped(ctx.arg(0), ctx.arg::<u64>(2) as u32)
}
