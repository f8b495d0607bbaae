//! Hooks of TCP's retransmissions (include/trace/events/tcp.h).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use wire::tcp_state;

use crate::{
    backlog::client,
    kernel::{
        preemption::Undisturbed,
        read::{layout, read},
    },
};

/// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, ...)`, since 4.16.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    let sk: u64 = ctx.arg(0);
    if read::<u8>(sk, layout!(state)) == tcp_state::SYN_SENT {
        client::syn_sent_again(sk);
    }
    0
}
