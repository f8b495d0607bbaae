//! Hooks on the kernel's functions: fentry and fexit (since 5.5, where the kernel allows them), or kprobes. What stands in for the
//! returns of calls that may wait, where there are only kprobes, is in [`super::waiting`].
//!
//! Argument positions are those of the running kernel's BTF where they have changed.

use crate::{
    kernel::{
        function::{on_entry, on_fexit, on_return},
        read::{layout, read},
    },
    live::{
        exchange::taken,
        explain::{closed_listener, drops, resets, unix_listener},
        transport::{connect, tcp::queue, transfer, unix},
    },
};

/// The sock of a `struct socket`.
#[inline(always)]
pub fn sock(socket: u64) -> u64 {
    read(socket, layout!(socket_sk))
}

on_fexit! {
    /// `int tcp_sendmsg(struct sock *sk, struct msghdr *msg, size_t size)`.
    "tcp_sendmsg": fexit_tcp_sendmsg;
    [0, 0, 0], returns at 3 => |[sk, _, _], returned| transfer::sent(sk, returned as i32);

    /// `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`.
    "unix_stream_sendmsg": fexit_unix_stream_sendmsg;
    [0, 0, 0], returns at 3 => |[socket, _, _], returned| transfer::sent(sock(socket), returned as i32);

    /// `int tcp_recvmsg(struct sock *sk, struct msghdr *msg, size_t len, [int nonblock,] int flags, int *addr_len)`.
    "tcp_recvmsg": fexit_tcp_recvmsg;
    [0, layout!(tcp_recvmsg_args) - 2, 0], returns at layout!(tcp_recvmsg_args) => |[sk, flags, _], returned| {
        transfer::received(sk, returned as i32, flags)
    };

    /// `int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`.
    "unix_stream_recvmsg": fexit_unix_stream_recvmsg;
    [0, 3, 0], returns at 4 => |[socket, flags, _], returned| transfer::received(sock(socket), returned as i32, flags);

    /// `int inet_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`.
    "inet_stream_connect": fexit_inet_stream_connect, standby fexit_inet_stream_connect_2 fexit_inet_stream_connect_3;
    [0, 1, 2], returns at 4 => |[socket, address, len], returned| {
        connect::connected(sock(socket), address, len, returned as i32)
    };
}

on_return! {
    /// `struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, ...)`: NULL where the accept queue is full.
    6 "tcp_v4_syn_recv_sock": fexit_tcp_v4_syn_recv_sock, kprobe_tcp_v4_syn_recv_sock, kretprobe_tcp_v4_syn_recv_sock;
    [0, 1, 0], returns at layout!(syn_recv_sock_args) => |[listener, skb, _], returned| {
        drops::handshake_ended(listener, skb, returned)
    };

    /// The same for IPv6, which calls the other one for mapped addresses.
    7 "tcp_v6_syn_recv_sock": fexit_tcp_v6_syn_recv_sock, kprobe_tcp_v6_syn_recv_sock, kretprobe_tcp_v6_syn_recv_sock;
    [0, 1, 0], returns at layout!(syn_recv_sock_args) => |[listener, skb, _], returned| {
        drops::handshake_ended(listener, skb, returned)
    };

    /// `int unix_stream_connect(struct socket *sock, struct sockaddr *uaddr, int addr_len, int flags)`.
    8 "unix_stream_connect": fexit_unix_stream_connect, kprobe_unix_stream_connect, kretprobe_unix_stream_connect,
    standby fexit_unix_stream_connect_2 fexit_unix_stream_connect_3;
    [0, 1, 2], returns at 4 => |[socket, address, len], returned| {
        connect::connected(sock(socket), address, len, returned as i32)
    };

    /// `int unix_listen(struct socket *sock, int backlog)`.
    10 "unix_listen": fexit_unix_listen, kprobe_unix_listen, kretprobe_unix_listen;
    [0, 0, 0], returns at 2 => |[socket, _, _], returned| if returned as i32 == 0 {
        unix_listener::listens(sock(socket));
        closed_listener::opens_unix_again(sock(socket));
    };
}

on_entry! {
    /// `int tcp_connect(struct sock *sk)`: the SYN is about to be made; both addresses and both ports are set.
    "tcp_connect": fentry_tcp_connect, kprobe_tcp_connect;
    [0] => |[sk]| queue::syn_goes_out(sk);

    /// `void security_sock_graft(struct sock *sk, struct socket *parent)`: a process is given the socket that it accepts, TCP or unix.
    /// Workers wait in accept from before the tracer came: their first return from there would not be seen.
    "security_sock_graft": fentry_security_sock_graft, kprobe_security_sock_graft,
    standby fentry_security_sock_graft_2 fentry_security_sock_graft_3;
    [0] => |[sk]| taken::accepted(sk);

    /// `int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct
    /// sk_buff *skb)`: a SYN has come to a listener.
    "tcp_conn_request": fentry_tcp_conn_request, kprobe_tcp_conn_request;
    [2, 3] => |[listener, skb]| drops::syn_came(listener, skb);

    /// `void unix_release_sock(struct sock *sk, int embrion)`: a unix socket ends.
    "unix_release_sock": fentry_unix_release_sock, kprobe_unix_release_sock,
    standby fentry_unix_release_sock_2 fentry_unix_release_sock_3;
    [0, 1] => |[sk, embrion]| unix::released(sk, embrion as u32 != 0);

    /// `void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb, ...)`: before 6.12 the tracepoint is silent where no socket
    /// took the packet.
    "tcp_v4_send_reset": fentry_tcp_v4_send_reset, kprobe_tcp_v4_send_reset;
    [0, 1] => |[sk, skb]| resets::sent(sk, skb, wire::MISSING);

    /// The same for IPv6.
    "tcp_v6_send_reset": fentry_tcp_v6_send_reset, kprobe_tcp_v6_send_reset;
    [0, 1] => |[sk, skb]| resets::sent(sk, skb, wire::MISSING);
}
