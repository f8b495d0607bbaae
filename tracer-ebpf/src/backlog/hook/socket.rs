//! Hooks of the socket calls (net/socket.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{listener, preemption::Undisturbed};

/// `sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3; attached only while userspace shows the listeners that are
/// older than it.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    listener::shown(ctx.arg(0));
    0
}
