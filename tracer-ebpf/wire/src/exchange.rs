//! The two ends of an exchange, as their sockets' stories accumulate in the kernel side's maps.

use crate::{Endpoint, Icmp, ListenerView, PacketDrop, Reset, Signal, Task};

/// The client for whose request nginx has an exchange, as its own socket showed it when the exchange ended.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Client {
    /// nginx's socket to it; zero where it is not known.
    pub sock: u64,
    /// Its address; of a client on a unix socket only the family.
    pub peer: Endpoint,
    /// The state of nginx's socket ([`crate::tcp_state`], of a unix socket what TCP would have): CLOSE_WAIT, the client had closed; CLOSE, it
    /// had reset the connection; zero where the socket was gone.
    pub state: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// Bits of [`NginxEnd::flags`].
pub mod nginx_flag {
    /// A reset arrived (`tcp_receive_reset`).
    pub const RESET_RECEIVED: u32 = 1;
    /// The accept queue was full at each look taken while this end's SYN was unanswered, the first one included.
    pub const QUEUE_FULL_AT_CONNECT: u32 = 1 << 1;
    /// The process that closed this end was exiting.
    pub const CLOSER_EXITING: u32 = 1 << 2;
    /// This exchange succeeded; it is emitted only because its connection was slow to come about.
    pub const ENDED_WELL: u32 = 1 << 3;
    /// A record of what nginx does next ([`crate::NextAction`]) follows.
    pub const NEXT_ACTION_FOLLOWS: u32 = 1 << 4;
    /// The last thing that happened on this end before it ended was bytes read, not bytes sent.
    pub const READ_LAST: u32 = 1 << 5;
    /// The worker's socket had been handed to a process (`sk_socket` is set) when this end ended.
    pub const WORKER_ACCEPTED: u32 = 1 << 6;
    /// The worker's end was still open when this end ended.
    pub const WORKER_OPEN: u32 = 1 << 7;
    /// A receive returned 0: the peer had closed.
    pub const END_READ: u32 = 1 << 8;
    /// A receive only peeked, after the response was read: nginx looks so at a connection that it keeps for later.
    pub const PEEKED: u32 = 1 << 9;
    /// nginx still wanted to send: its last send found the socket's buffer full, and no room had come about since
    /// (`SOCK_NOSPACE`). On a unix socket the kernel does not take that back when everything could be sent later.
    pub const SEND_BLOCKED: u32 = 1 << 10;
    /// Each reset that this host's TCP sends is seen: where none is known, it sent none.
    pub const OWN_RESETS_SEEN: u32 = 1 << 11;
    /// At each look taken while this end's SYN was unanswered, more handshakes were unfinished than the backlog, and SYN
    /// cookies were off.
    pub const SYN_QUEUE_FULL_AT_CONNECT: u32 = 1 << 12;
    /// At one of the looks, the upstream's listener may have been among those that are not known for want of room.
    pub const LISTENER_LEFT_OUT: u32 = 1 << 13;
    /// Something of this exchange found no room in a table, or may have been pushed out of one.
    pub const FACTS_LOST: u32 = 1 << 14;
    /// nginx's word on this exchange would have been heard, had there been one: userspace knows, and sets it.
    pub const WORD_AUDIBLE: u32 = 1 << 15;
    /// nginx passed on what came, whatever it was, when this end ended: its client and the upstream had agreed on another protocol (101).
    pub const UPGRADED: u32 = 1 << 16;
    /// nginx made this connection for a session of `stream {}`.
    pub const STREAM: u32 = 1 << 17;
    /// A module made this connection for itself while nginx had a request: Lua's cosockets, say.
    pub const OF_MODULE: u32 = 1 << 18;
    /// What nginx's thread was given last before it closed this end, in the time that it was awake, came from this very end.
    pub const UPSTREAM_READ: u32 = 1 << 19;
    /// It came from the client ([`crate::Client`]).
    pub const CLIENT_READ: u32 = 1 << 20;
    /// It came from neither.
    pub const OTHER_READ: u32 = 1 << 21;
    /// The thread had slept since: what woke it was a timer, or an event that gave it nothing to read.
    pub const NOTHING_READ: u32 = 1 << 22;
    /// The client's socket had no room for what nginx wanted to send to it (`SOCK_NOSPACE`).
    pub const CLIENT_BLOCKED: u32 = 1 << 23;
    /// The nginx worker called itself "shutting down" when it closed this end.
    pub const SHUTTING_DOWN: u32 = 1 << 24;
    /// nginx had not read all of the request's body when it closed this end over what it had read from its client, and nothing of the response.
    pub const REQUEST_UNDER_WAY: u32 = 1 << 25;
    /// To nginx, the client's connection was over when it closed this end: it had read its end, or was giving up an HTTP/2 connection with all
    /// that was under way on it.
    pub const CLIENT_ENDED: u32 = 1 << 26;
    /// Whether it was, and whether a timer had gone off, nginx's memory did not show, though the client is known.
    pub const CLIENT_UNTOLD: u32 = 1 << 27;
    /// nginx's thread had closed another exchange before this one, and did and received nothing in between: what it does next, it does after both.
    pub const SAME_TURN: u32 = 1 << 28;
    /// By its memory, no timer of nginx's had gone off, for the client or for this end, when it closed this end.
    pub const UNTIMED: u32 = 1 << 29;
    /// nginx's timer for what the client was to send (`client_body_timeout`) had gone off.
    pub const BODY_TIMED: u32 = 1 << 30;
    /// Another process held this end's file when nginx closed it, as whoever looks at open files does for a moment, and it ended when that one
    /// let go of it: nginx's thread had gone on by then.
    pub const CLOSED_LATE: u32 = 1 << 31;
    /// Each bit that has a meaning: evidence must have a name for it.
    pub const ALL: u32 = u32::MAX;
}

/// nginx's end of an exchange: the socket that called connect.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct NginxEnd {
    /// This end's socket. With `connect_ns` it names the exchange's connection.
    pub sock: u64,
    /// The worker's socket, or zero while none was joined to this end.
    pub worker_sock: u64,
    /// The network namespace's address in the kernel: an identity.
    pub net: u64,
    /// The handshake's sequence numbers: nginx's first data byte's in the upper half, the worker's in the lower.
    /// Both ends know both, whatever address translation lies between them; zero before the handshake is over.
    pub handshake: u64,
    /// When connect was called.
    pub connect_ns: u64,
    /// When the handshake was over.
    pub established_ns: u64,
    /// When this exchange's request was first sent from.
    pub first_sent_ns: u64,
    /// When bytes of this exchange were last sent.
    pub last_sent_ns: u64,
    /// When the response was first read from.
    pub first_received_ns: u64,
    /// When the response was last read from.
    pub last_received_ns: u64,
    /// When this end ended: nginx closed it, or the kernel did.
    pub ended_ns: u64,
    /// Bytes nginx sent in this exchange.
    pub sent: u64,
    /// Bytes nginx read in this exchange.
    pub received: u64,
    /// `tcp_sock.bytes_received` when this end ended, over the whole connection; a FIN counts as one byte.
    pub arrived: u64,
    /// Bytes that arrived and that nginx never read; on a unix socket the buffers they lie in.
    pub unread: u32,
    /// Bytes that nginx gave and that the peer's kernel never acknowledged, sent or not.
    pub unacked: u32,
    /// Exchanges on this connection, this one included.
    pub exchange: u32,
    /// Retransmissions of this end's SYN.
    pub syn_retransmits: u32,
    /// `tcp_sock.total_retrans` when this end ended.
    pub retransmits: u32,
    /// `sk_err` when this end ended: an errno, or zero where nginx closed of its own accord.
    pub error: u32,
    /// `task_struct.exit_code` of the closer, if it was exiting.
    pub exit_code: u32,
    /// [`nginx_flag`] bits.
    pub flags: u32,
    /// The state this end left when it ended ([`crate::tcp_state`]).
    pub old_state: u8,
    /// The state it entered.
    pub new_state: u8,
    /// The last errno a connect, send or receive call on this socket returned, or zero.
    pub errno: u16,
    /// The network namespace's inode number, as `/proc/PID/ns/net` shows it.
    pub netns: u32,
    /// nginx's own address.
    pub local: Endpoint,
    /// The address nginx connected to.
    pub upstream: Endpoint,
    /// The thread that connected.
    pub nginx: Task,
    /// The upstream's listener when connect was called.
    pub listener_first: ListenerView,
    /// The same at the last look, at a SYN's retransmission or when this end ended.
    pub listener_last: ListenerView,
    /// The reset that this host sent to this end's SYN, or to the packet that ends its handshake.
    pub reset: Reset,
    /// The packets of its handshake that this host dropped.
    pub dropped: PacketDrop,
    /// The ICMP message that answered its SYN.
    pub icmp: Icmp,
    /// When nginx said the word that is about this exchange ([`crate::Word::ns`]); zero where it said none before this record.
    pub word_ns: u64,
    /// When the last bytes were read of the exchange before on the same connection, which was idle from then on; zero of its first.
    pub idle_since_ns: u64,
    /// Whose request it serves.
    pub client: Client,
    /// When this host answered the upstream's next packet with a reset, for no socket of its took it; zero for never.
    pub refused_ns: u64,
    /// The upstream's next packet, each time that this host dropped it: what nginx's socket waited for. Of a host that sends no more it may be
    /// an empty one.
    pub lost_in: PacketDrop,
    /// nginx's first packet that was never acknowledged, each time that this host dropped it; where all were, an empty one.
    pub lost_out: PacketDrop,
    /// How far it is from the first byte that did not come to the end of those that came after it (`tcp_sock.out_of_order_queue`); zero where
    /// none is missing. A FIN counts as one byte.
    pub gap: u32,
    /// Retransmissions of the worker's end when this one ended, if that was open.
    pub worker_retransmits: u32,
}

/// The worker's end of an exchange: the socket the listener's kernel made.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkerEnd {
    /// This end's socket, or zero: the other end was not seen on this host.
    pub sock: u64,
    /// nginx's socket.
    pub nginx_sock: u64,
    /// `connect_ns` of nginx's end: with `nginx_sock` the name of the connection.
    pub connect_ns: u64,
    /// When the kernel made this socket.
    pub created_ns: u64,
    /// When the worker accepted it or, where that is not seen or another process did, first read from it; zero for not.
    pub accepted_ns: u64,
    /// When nginx's end ended while this one was open, or zero.
    pub abandoned_ns: u64,
    /// When this end ended, or zero while it is open.
    pub ended_ns: u64,
    /// `tcp_sock.bytes_received` when this end ended or was last looked at; a FIN counts as one byte.
    pub arrived: u64,
    /// Bytes this end sent, by `tcp_sock.bytes_sent` less those sent again.
    pub sent: u64,
    /// Bytes that arrived and that the worker never read; a FIN counts as one byte.
    pub unread: u32,
    /// `sk_err` when this end ended: zero where a process closed it.
    pub error: u32,
    /// `task_struct.exit_code` of the closer, if it was exiting: the signal in the low seven bits.
    pub exit_code: u32,
    /// One where the closer was exiting.
    pub exiting: u32,
    /// One where the socket had been handed to a process (`sk_socket` was set) at the last look.
    pub has_socket: u32,
    /// The state this end left when it ended.
    pub old_state: u8,
    /// The state it entered.
    pub new_state: u8,
    /// Always zero.
    pub reserved: u16,
    /// This end's own address.
    pub local: Endpoint,
    /// Who read first: the worker.
    pub worker: Task,
    /// Who closed this end, where a process did.
    pub closer: Task,
    /// Always zero.
    pub reserved2: u32,
    /// The signal the closer died of, if it was exiting.
    pub signal: Signal,
}

/// An open exchange: both its ends.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct OpenExchange {
    /// nginx's end.
    pub nginx: NginxEnd,
    /// The worker's end once it has been joined; else all zero.
    pub worker: WorkerEnd,
    /// nginx's own object for the connection, in its memory; zero where that is not known. It stays on this side.
    pub connection: u64,
    /// The port of the worker's peer as the worker's end sees it, host order; zero of a unix exchange and of one that is not found by it.
    pub peer_port: u64,
    /// Of a unix exchange the number by which the kernel side keeps its path; zero over TCP.
    pub path: u64,
}
