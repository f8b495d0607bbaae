//! Bytes that processes send and receive, on sockets of any kind.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use tracer_ebpf::tcp_state;

use crate::{
    aftermath,
    kernel::{self, filter, layout, read},
    listener, nginx_end, unix_end, unix_listener, worker_end,
};

const EINVAL: i32 = 22;
const ENOTCONN: i32 = 107;
const MSG_PEEK: u64 = 2;

/// A send on `sk` returned `ret`.
#[inline(always)]
pub fn sent(sk: u64, ret: i32) {
    let (remote_port, _) = kernel::ports(sk);
    if !nginx_end::sends(sk, remote_port, ret) && remote_port == 0 {
        unix_end::notice(sk);
    }
    if aftermath::is_awaited() && ret > 0 {
        aftermath::sent(sk, ret as u32, read(sk, layout!(state)));
    }
}

/// A receive on `sk` returned `ret`.
///
/// The tracer itself calls receive on listeners that are older than it: the call fails, and hands over their address.
#[inline(always)]
pub fn received(sk: u64, ret: i32, flags: u64) {
    if ret == -ENOTCONN || ret == -EINVAL {
        if (bpf_get_current_pid_tgid() >> 32) as u32 == filter!(own_pid)
            && read::<u8>(sk, layout!(state)) == tcp_state::LISTEN
        {
            if kernel::is_inet(sk) { listener::add(sk) } else { unix_listener::listens(sk) }
        }
        return;
    }
    if aftermath::is_awaited() {
        aftermath::received(sk);
    }
    let (remote_port, local_port) = kernel::ports(sk);
    if !nginx_end::receives(sk, remote_port, ret, flags & MSG_PEEK != 0) {
        worker_end::read_from(sk, local_port);
    }
}
