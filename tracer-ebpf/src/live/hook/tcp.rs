//! Hooks of TCP's resets, retransmissions and teardown (include/trace/events/tcp.h).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use wire::{MISSING, tcp_state};

use crate::{
    kernel::{
        read::{layout, read},
        standby::with_standby,
    },
    live::{
        exchange::nginx_end,
        explain::{resets, word},
        fallback,
        transport::tcp::{end, queue},
    },
};

/// What an event is told apart by: one socket's events of different kinds may be under way at a time.
const RECEIVED: u64 = 1 << 40;
const DESTROYED: u64 = 1 << 41;
const SENT: u64 = 1 << 42;
const RETRANSMITTED: u64 = 1 << 43;

with_standby! {
    /// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, const enum sk_rst_reason reason)`, since 4.16;
    /// the reason since 6.10. Before 6.12 it is not called where no socket took the packet.
    "tcp_send_reset":
    tcp_send_reset, tcp_send_reset_body, tcp_send_reset_1, tcp_send_reset_2, tcp_send_reset_3;
    |ctx| (ctx.arg::<u64>(0) ^ ctx.arg::<u64>(1), SENT) => {
        let reason = if layout!(reset_reason_arg) == MISSING { MISSING } else { ctx.arg::<u64>(2) as u32 };
        resets::sent(ctx.arg(0), ctx.arg(1), reason)
    }

    /// `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, ...)`, since 4.16.
    "tcp_retransmit_skb":
    tcp_retransmit_skb, tcp_retransmit_skb_body, tcp_retransmit_skb_1, tcp_retransmit_skb_2, tcp_retransmit_skb_3;
    |ctx| (ctx.arg(0), RETRANSMITTED) => {
        if read::<u8>(ctx.arg(0), layout!(state)) == tcp_state::SYN_SENT {
            queue::syn_sent_again(ctx.arg(0));
        }
    }

    /// `tcp_receive_reset(struct sock *sk)`, since 4.16; called before `sk_err` is set.
    "tcp_receive_reset":
    tcp_receive_reset, tcp_receive_reset_body, tcp_receive_reset_1, tcp_receive_reset_2, tcp_receive_reset_3;
    |ctx| (ctx.arg(0), RECEIVED) => nginx_end::reset_received(ctx.arg(0))

    /// `tcp_destroy_sock(struct sock *sk)`, since 4.16.
    "tcp_destroy_sock":
    tcp_destroy_sock, tcp_destroy_sock_body, tcp_destroy_sock_1, tcp_destroy_sock_2, tcp_destroy_sock_3;
    |ctx| (ctx.arg(0), DESTROYED) => {
        if fallback::is_awaited() || word::is_any() {
            end::destroyed(ctx.arg(0));
        }
    }
}
