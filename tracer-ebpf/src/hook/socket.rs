//! Hooks of the socket calls (net/socket.c).

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use tracer_ebpf::tcp_state;

use crate::{
    aftermath,
    kernel::{self, filter, layout, read},
    listener, nginx_end, unix_end, worker_end,
};

const EINVAL: i32 = 22;
const ENOTCONN: i32 = 107;
const MSG_PEEK: u64 = 2;

/// `sock_send_length(struct sock *sk, int ret, int flags)`, since 6.3; called after each send on any socket.
#[raw_tracepoint(tracepoint = "sock_send_length")]
pub fn sock_send_length(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let ret = ctx.arg::<u64>(1) as i32;
    if aftermath::is_awaited() && ret > 0 {
        aftermath::sent(sk, ret as u32, read(sk, layout!(state)));
    }
    let (remote_port, _) = kernel::ports(sk);
    if !nginx_end::sends(sk, remote_port, ret) && remote_port == 0 {
        unix_end::notice(sk);
    }
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`, since 6.3; called after each receive on any socket.
///
/// The tracer itself calls receive on listeners that are older than it: the call fails, and hands over their
/// address.
#[raw_tracepoint(tracepoint = "sock_recv_length")]
pub fn sock_recv_length(ctx: RawTracePointContext) -> i32 {
    let sk: u64 = ctx.arg(0);
    let ret = ctx.arg::<u64>(1) as i32;
    let flags: u64 = ctx.arg(2);
    let (remote_port, local_port) = kernel::ports(sk);
    if ret == -ENOTCONN || ret == -EINVAL {
        if (bpf_get_current_pid_tgid() >> 32) as u32 == filter!(own_pid)
            && read::<u8>(sk, layout!(state)) == tcp_state::LISTEN
        {
            if kernel::is_inet(sk) { listener::add(sk) } else { unix_end::listens(sk) }
        }
        return 0;
    }
    if flags & MSG_PEEK != 0 || !nginx_end::receives(sk, remote_port, ret) {
        worker_end::read_from(sk, local_port);
    }
    0
}
