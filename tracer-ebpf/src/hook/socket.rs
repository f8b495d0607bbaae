//! Hooks of the socket calls (net/socket.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::transfer;

/// `sock_send_length(struct sock *sk, int ret, int flags)`, since 6.3; called after each send on any socket.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn sock_send_length(ctx: RawTracePointContext) -> i32 {
    transfer::sent(ctx.arg(0), ctx.arg::<u64>(1) as i32);
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3; called after each receive on any socket.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    transfer::received(ctx.arg(0), ctx.arg::<u64>(1) as i32, ctx.arg(2));
    0
}
