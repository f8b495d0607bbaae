//! Hooks on the kernel's functions: fentry and fexit (since 5.5, where the kernel allows them), or kprobes.
//!
//! Argument positions are those of the running kernel's BTF where they have changed.

use aya_ebpf::{
    macros::{fexit, kretprobe},
    programs::{FExitContext, RetProbeContext},
};

use crate::{
    backlog::{listener, packet, unix},
    kernel::{
        function::{argument, on_entry, on_return},
        preemption::Undisturbed,
        read::{layout, read},
    },
};

/// The sock of a `struct socket`.
#[inline(always)]
fn sock(socket: u64) -> u64 {
    read(socket, layout!(socket_sk))
}

on_return! {
    /// `struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, ...)`: NULL where the accept queue is full.
    2 "tcp_v4_syn_recv_sock": fexit_tcp_v4_syn_recv_sock, kprobe_tcp_v4_syn_recv_sock, kretprobe_tcp_v4_syn_recv_sock;
    [0, 1, 0], returns at layout!(syn_recv_sock_args) => |[listener, skb, _], returned| {
        packet::handshake_ended(listener, skb, returned)
    };

    /// The same for IPv6, which calls the other one for mapped addresses.
    3 "tcp_v6_syn_recv_sock": fexit_tcp_v6_syn_recv_sock, kprobe_tcp_v6_syn_recv_sock, kretprobe_tcp_v6_syn_recv_sock;
    [0, 1, 0], returns at layout!(syn_recv_sock_args) => |[listener, skb, _], returned| {
        packet::handshake_ended_v6(listener, skb, returned)
    };

    /// `int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct
    /// sk_buff *skb)`: a listener has dealt with a SYN.
    6 "tcp_conn_request": fexit_tcp_conn_request, kprobe_tcp_conn_request, kretprobe_tcp_conn_request;
    [2, 3, 0], returns at 4 => |[listener, skb, _], _returned| packet::syn_came(listener, skb);

    /// `int unix_listen(struct socket *sock, int backlog)`: without `sk_data_ready`, nothing else shows a new unix listener.
    7 "unix_listen": fexit_unix_listen, kprobe_unix_listen, kretprobe_unix_listen;
    [0, 0, 0], returns at 2 => |[socket, _, _], _returned| unix::listens(sock(socket));
}

/// `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)` returns.
#[fexit(function = "unix_stream_connect")]
pub fn fexit_unix_stream_connect(ctx: FExitContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    unix::connect_returned(i64::from(argument(&ctx, 4) as i32));
    0
}

/// The same.
#[kretprobe]
pub fn kretprobe_unix_stream_connect(ctx: RetProbeContext) -> u32 {
    unix::connect_returned(i64::from(ctx.ret::<u64>() as i32));
    0
}

on_entry! {
    /// `void security_sock_graft(struct sock *sk, struct socket *parent)`: a process is given the socket that it accepts, TCP or unix.
    /// Workers wait in accept from before the tracer came: their first return from there would not be seen.
    "security_sock_graft": fentry_security_sock_graft, kprobe_security_sock_graft;
    [0] => |[sk]| listener::accepted(sk);

    /// `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`. An int is kept in four bytes of
    /// eight (`save_regs`, before 5.12), and the others are anything.
    "unix_stream_connect": fentry_unix_stream_connect, kprobe_unix_stream_connect;
    [0, 1, 2] => |[socket, address, len]| unix::connect_begins(sock(socket), address, len as u32);
}
