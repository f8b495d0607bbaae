//! Hooks of the socket calls (net/socket.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{kernel::standby::with_standby, live::transport::transfer};

with_standby! {
    /// `sock_send_length(struct sock *sk, int ret, int flags)`, since 6.3; called after each send on any socket.
    "sock_send_length":
    sock_send_length, sock_send_length_body, sock_send_length_1, sock_send_length_2, sock_send_length_3;
    |ctx| (ctx.arg(0), ctx.arg::<u64>(1) << 1) => transfer::sent(ctx.arg(0), ctx.arg::<u64>(1) as i32)

    /// `sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3; called after each receive on any socket.
    "sock_recv_length":
    sock_recv_length, sock_recv_length_body, sock_recv_length_1, sock_recv_length_2, sock_recv_length_3;
    |ctx| (ctx.arg(0), ctx.arg::<u64>(1) << 1 | 1) => {
        transfer::received(ctx.arg(0), ctx.arg::<u64>(1) as i32, ctx.arg(2))
    }
}
