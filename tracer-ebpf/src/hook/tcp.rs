//! Hooks of TCP's resets, retransmissions and teardown (include/trace/events/tcp.h).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::{MISSING, tcp_state};

use crate::{
    aftermath,
    copies::in_copies,
    kernel::{layout, read},
    nginx_end, reset,
};

/// What a copy is told apart by: one socket's events of different kinds may be under way at a time.
const RECEIVED: u64 = 1 << 40;
const DESTROYED: u64 = 1 << 41;

/// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, const enum sk_rst_reason reason)`, since 4.16;
/// the reason since 6.10. Before 6.12 it is not called where no socket took the packet.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: RawTracePointContext) -> i32 {
    let reason = if layout!(reset_reason_arg) == MISSING { MISSING } else { ctx.arg::<u64>(2) as u32 };
    reset::sent(ctx.arg(0), ctx.arg(1), reason);
    0
}

/// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, ...)`, since 4.16.
#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    if read::<u8>(sk, layout!(state)) == tcp_state::SYN_SENT {
        nginx_end::syn_sent_again(sk);
    }
    0
}

in_copies! {
    /// `tcp_receive_reset(struct sock *sk)`, since 4.16; called before `sk_err` is set.
    "tcp_receive_reset": tcp_receive_reset, tcp_receive_reset_2, tcp_receive_reset_3;
        |ctx| (ctx.arg(0), RECEIVED) => nginx_end::reset_received(ctx.arg(0))

    /// `tcp_destroy_sock(struct sock *sk)`, since 4.16.
    "tcp_destroy_sock": tcp_destroy_sock, tcp_destroy_sock_2, tcp_destroy_sock_3;
        |ctx| (ctx.arg(0), DESTROYED) => if aftermath::is_awaited() {
            aftermath::destroyed(ctx.arg(0));
        }
}
