//! Calls that may wait, where only kprobes are to be had.
//!
//! Who waits in a call keeps one of the few places that a kretprobe has ([`crate::kernel::function`]), and the next returns are passed over:
//! once a few workers wait in accept, no accept is seen any more. So something else shows how these calls end. Connections that
//! are refused before a packet is sent, too: a connect of somebody else may wait for minutes.

use aya_ebpf::{macros::kretprobe, programs::RetProbeContext};
use wire::FAMILY_INET;

use super::function::sock;
use crate::{
    kernel::{
        function::{on_kprobe, on_kretprobe},
        read::{layout, read},
        sock,
    },
    live::transport::{connect, receives, transfer},
};

const EINPROGRESS: i32 = 115;

on_kprobe! {
    /// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, [int nonblock,] int flags, int *addr_len)`.
    kprobe_tcp_recvmsg; [0, layout!(tcp_recvmsg_args) - 2] => |[sk, flags]| {
        let _is_ours = receives::begins(sk, flags);
    };

    /// `void tcp_cleanup_rbuf(struct sock *sk, int copied)`: a receive ends, with what it returns; one that is going to wait comes by
    /// here before, with nothing.
    kprobe_tcp_cleanup_rbuf; [0, 1] => |[sk, copied]| {
        if transfer::may_be_ours(sk) && (copied as i32 != 0 || sock::has_peer_closed(sk)) {
            let flags = match receives::under_way() {
                Some([of, flags]) if of == sk => flags,
                _ => 0,
            };
            transfer::receive_ends(sk, copied as i32, flags);
        }
    };

    /// `int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`. With nothing to read, it ends with
    /// what is found here.
    kprobe_unix_stream_recvmsg; [0, 3] => |[socket, flags]| {
        let sk = sock(socket);
        if !receives::begins(sk, flags) {
            receives::forget();
        } else if read::<u32>(sk, layout!(receive_qlen)) == 0 {
            let error: u32 = read(sk, layout!(sk_err));
            if error != 0 || sock::has_peer_closed(sk) {
                transfer::receive_ends(sk, -(error as i32), flags);
            }
        }
    };

    /// `int unix_stream_read_actor(struct sk_buff *skb, int skip, int chunk, struct unix_stream_read_state *state)`: a receive takes
    /// `chunk` bytes out of one buffer.
    kprobe_unix_stream_read_actor; [2] => |[chunk]| {
        if let Some([sk, flags]) = receives::under_way() {
            transfer::receive_ends(sk, chunk as i32, flags);
        }
    };

    /// `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`.
    kprobe_tcp_sendmsg; [0, 2] => |[sk, size]| transfer::send_begins(sk, size);

    /// `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`.
    kprobe_unix_stream_sendmsg; [0, 2] => |[socket, size]| transfer::send_begins(sock(socket), size);
}

/// tcp_sendmsg returns, if there was a place for it: [`transfer::settle`].
#[kretprobe]
pub fn kretprobe_tcp_sendmsg(ctx: RetProbeContext) -> u32 {
    transfer::send_returned(ctx.ret::<u64>() as i32);
    0
}

/// unix_stream_sendmsg returns, likewise.
#[kretprobe]
pub fn kretprobe_unix_stream_sendmsg(ctx: RetProbeContext) -> u32 {
    transfer::send_returned(ctx.ret::<u64>() as i32);
    0
}

on_kretprobe! {
    /// `int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)`: sends the SYN, and does not wait for its answer.
    call connect::CONNECT_V4, kprobe_tcp_v4_connect, kretprobe_tcp_v4_connect;
    [0, 1, 2] => |[sk, address, len], returned| {
        // An IPv6 socket with an IPv4 address comes by here as well.
        if read::<u16>(sk, layout!(family)) == FAMILY_INET {
            connect_returned(sk, address, len, returned as i32);
        }
    };

    /// The same for IPv6.
    call connect::CONNECT_V6, kprobe_tcp_v6_connect, kretprobe_tcp_v6_connect;
    [0, 1, 2] => |[sk, address, len], returned| connect_returned(sk, address, len, returned as i32);
}

/// As inet_stream_connect returns where nobody waits.
#[inline(always)]
fn connect_returned(sk: u64, address: u64, len: u64, returned: i32) {
    connect::connected(sk, address, len, if returned == 0 { -EINPROGRESS } else { returned });
}
