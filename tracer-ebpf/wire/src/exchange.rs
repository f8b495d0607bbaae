//! The two ends of an exchange, as their sockets' stories accumulate in the kernel side's maps.

use crate::COMM_LEN;

/// `AF_INET`.
pub const FAMILY_INET: u16 = 2;
/// `AF_INET6`.
pub const FAMILY_INET6: u16 = 10;
/// `AF_UNIX`.
pub const FAMILY_UNIX: u16 = 1;
/// `sizeof(sockaddr_un.sun_path)`, in bytes.
pub const PATH_LEN: usize = 108;

/// An address and a port.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address in network order; IPv4 is mapped into IPv6 (`::ffff:a.b.c.d`).
    pub addr: [u32; 4],
    /// The port in host order.
    pub port: u16,
    /// [`FAMILY_INET`] or [`FAMILY_INET6`], as the socket was made.
    pub family: u16,
}

/// One thread of one process.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// What userspace calls the pid.
    pub tgid: u32,
    /// What userspace calls the thread id.
    pub tid: u32,
    /// The thread's name, closed by a zero.
    pub comm: [u8; COMM_LEN],
}

/// What one look at a listener's `struct sock` said. "Full" is `sk_acceptq_is_full`: depth > limit.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerView {
    /// The listener, or zero where none is known for this address; with a moment where there may be one nonetheless.
    pub sock: u64,
    /// When these figures were read.
    pub ns: u64,
    /// `sk_ack_backlog`: connections that wait to be accepted.
    pub depth: u32,
    /// `sk_max_ack_backlog`: the effective backlog; one connection more than this fits.
    pub limit: u32,
    /// `sk_drops`: what this listener has dropped since it was made.
    pub drops: u32,
    /// How many listeners share the address (`SO_REUSEPORT`); the figures are of the newest one.
    pub shared: u32,
    /// Handshakes that are not over (`icsk_accept_queue.qlen`).
    pub syn_queue: u32,
    /// One where the listener is in another network namespace than the connection, or its address was translated.
    pub elsewhere: u32,
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kernel:literal;)*) => {
        /// Why the kernel dropped a packet, of those reasons that explain failed exchanges. The running kernel's own numbers
        /// change with every release.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            $($(#[$doc])* $name = $number,)*
        }

        impl DropReason {
            /// The reason with this number, if there is one.
            pub const fn from_u32(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The kernel's own name, without `SKB_DROP_REASON_`; empty where no reason names it.
            pub const fn kernel_name(self) -> &'static str {
                match self {
                    $(Self::$name => $kernel,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// A netfilter rule.
    Netfilter = 1, "NETFILTER_DROP";
    /// Reverse path filtering.
    ReversePath = 2, "IP_RPFILTER";
    /// A full accept queue at the end of the handshake.
    ListenOverflow = 3, "TCP_LISTEN_OVERFLOW";
    /// A full accept queue when the SYN came (`tcp_conn_request` tests `sk_acceptq_is_full`); no reason names it.
    AcceptQueueFull = 4, "";
    /// A neighbour that did not answer.
    NeighbourFailed = 5, "NEIGH_FAILED";
    /// A tc filter, or a BPF program in its place, on an interface's way in.
    TcIngress = 6, "TC_INGRESS";
    /// A tc filter, or a BPF program in its place, on an interface's way out.
    TcEgress = 7, "TC_EGRESS";
    /// An XDP program of an interface.
    Xdp = 8, "XDP";
    /// The queueing discipline of an interface.
    QdiscDrop = 9, "QDISC_DROP";
    /// The queueing discipline of an interface, whose queue was full.
    QdiscOverlimit = 10, "QDISC_OVERLIMIT";
    /// The queueing discipline of an interface, against congestion.
    QdiscCongested = 11, "QDISC_CONGESTED";
    /// A BPF program of a cgroup, on the way out.
    CgroupEgress = 12, "BPF_CGROUP_EGRESS";
    /// A socket's filter, or a BPF program of a cgroup on the way in.
    SocketFilter = 13, "SOCKET_FILTER";
    /// A security module.
    SecurityHook = 14, "SECURITY_HOOK";
    /// A CPU's full backlog of packets.
    CpuBacklog = 15, "CPU_BACKLOG";
    /// An IPsec policy.
    IpsecPolicy = 16, "XFRM_POLICY";
    /// The lack of a route for it when it came in.
    NoRouteIn = 17, "IP_INNOROUTES";
    /// The lack of a route for it on the way out.
    NoRouteOut = 18, "IP_OUTNOROUTES";
    /// The full queue of a neighbour whose link address is not known yet.
    NeighbourQueueFull = 19, "NEIGH_QUEUEFULL";
    /// A neighbour's entry that was being removed.
    NeighbourDead = 20, "NEIGH_DEAD";
    /// TCP, for it lacks an MD5 signature that this host expects.
    Md5NotFound = 21, "TCP_MD5NOTFOUND";
    /// TCP, for it has an MD5 signature that this host does not expect.
    Md5Unexpected = 22, "TCP_MD5UNEXPECTED";
    /// TCP, for its checksum was wrong.
    TcpChecksum = 23, "TCP_CSUM";
    /// IP, for its checksum was wrong.
    IpChecksum = 24, "IP_CSUM";
    /// The lack of memory.
    NoMemory = 25, "NOMEM";
    /// TCP's limit of memory.
    ProtocolMemory = 26, "PROTO_MEM";
    /// A virtual interface's full ring.
    FullRing = 27, "FULL_RING";
    /// IP, for it was larger than the MTU.
    TooBig = 28, "PKT_TOO_BIG";
    /// IPv6, which is disabled on the interface.
    Ipv6Disabled = 29, "IPV6DISABLED";
    /// IP, for it came from outside with an address of this host's own.
    LocalSource = 30, "IP_LOCAL_SOURCE";
    /// IP, for its source address is none.
    InvalidSource = 31, "IP_INVALID_SOURCE";
    /// IP, for a loopback address came from outside.
    Localnet = 32, "IP_LOCALNET";
    /// An interface that was not up.
    DeviceNotReady = 33, "DEV_READY";
}

/// Packets of an exchange's handshake that this host's kernel dropped (`kfree_skb`).
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketDrop {
    /// When the last one was dropped; zero for none.
    pub ns: u64,
    /// A [`DropReason`].
    pub reason: u32,
    /// How many were dropped.
    pub packets: u32,
}

/// A reset that this host's kernel sent in answer to an end's packet, kept by `tcp_send_reset`.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reset {
    /// When it was sent.
    pub ns: u64,
    /// `enum sk_rst_reason` as the running kernel numbers it; `u32::MAX` where the kernel gives none.
    pub reason: u32,
    /// One where no socket at all answered to the packet's address.
    pub without_socket: u32,
    /// One where a listener sent it: it would not make a socket for the connection.
    pub by_listener: u32,
    /// Always zero.
    pub reserved: u32,
}

/// An ICMP message that answered an end's SYN (`inet_sk_error_report`).
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Icmp {
    /// When it came; zero for none, also where only the errno is seen.
    pub ns: u64,
    /// The errno the kernel makes of it.
    pub errno: u32,
    /// One for ICMPv6.
    pub is_v6: u16,
    /// The message's type.
    pub kind: u8,
    /// The message's code.
    pub code: u8,
}

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
    /// This exchange ended plainly well; it is told only because its connection was slow to come about.
    pub const ENDED_WELL: u32 = 1 << 3;
    /// A record of what nginx does next ([`crate::Aftermath`]) follows.
    pub const AFTERMATH_FOLLOWS: u32 = 1 << 4;
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
    /// Whether it was, and whether a timer had gone off, nginx's memory did not tell, though the client is known.
    pub const CLIENT_UNTOLD: u32 = 1 << 27;
    /// nginx's thread had closed another exchange before this one, and did and received nothing in between: what it does next, it does after both.
    pub const SAME_TURN: u32 = 1 << 28;
    /// By its memory, no timer of nginx's had gone off, for the client or for this end, when it closed this end.
    pub const UNTIMED: u32 = 1 << 29;
    /// nginx's timer for what the client was to send (`client_body_timeout`) had gone off.
    pub const BODY_TIMED: u32 = 1 << 30;
    /// Each bit that has a meaning: evidence must have a name for it.
    pub const ALL: u32 = (BODY_TIMED << 1) - 1;
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

/// Where a signal came from.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not told: so in evidence of before there was this.
    Untold = 0,
    /// A process sent it, by a system call.
    Process = 1,
    /// A POSIX timer (`timer_create`).
    Timer = 2,
    /// The kernel, of its own accord or for a terminal, an alarm, a limit.
    Kernel = 3,
    /// A fault of the process's own.
    Fault = 4,
    /// Its parent's death, at which it had asked for this signal (`PR_SET_PDEATHSIG`).
    ParentDeath = 5,
    /// An event on a file or a message queue at which somebody had asked for this signal, or a process that forged such a code.
    Event = 6,
    /// It was pushed out or found no room.
    Lost = 7,
}

impl Origin {
    /// The origin with this number, if there is one.
    pub const fn from_u16(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Untold),
            1 => Some(Self::Process),
            2 => Some(Self::Timer),
            3 => Some(Self::Kernel),
            4 => Some(Self::Fault),
            5 => Some(Self::ParentDeath),
            6 => Some(Self::Event),
            7 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// A fatal signal, as `signal_generate` saw it: the last one that was not the process's own, or its own where nobody had sent it before.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Signal {
    /// When it was sent; zero where none is known.
    pub ns: u64,
    /// The signal's number.
    pub number: u32,
    /// `si_code`: 0 (`SI_USER`) for kill(2), 0x80 (`SI_KERNEL`), or a fault's own code; a sender may forge it.
    pub code: i32,
    /// Who sent it, or whose death it was sent at; all zero for another [`Origin`].
    pub sender: Task,
    /// One where that is the victim's parent process.
    pub from_parent: u16,
    /// An [`Origin`].
    pub origin: u16,
    /// One where the kernel sent it because memory ran out (`mark_victim`).
    pub out_of_memory: u32,
}

/// Which signals that tell a program to stop had been sent to a worker that handled them, and to its parent, before the worker's end
/// ended: SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGUSR1, SIGUSR2 and SIGTERM. Of each the last; SIGUSR1, at which many only open their logs
/// anew, gives way to any other.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stops {
    /// To the process that closed the worker's end, before it did so; none where it died of one ([`WorkerEnd::signal`]).
    pub worker: Signal,
    /// To its parent, since the worker began and before the worker was sent its own, or if it was sent none, before its end ended.
    pub parent: Signal,
    /// The parent when the process became a worker; all zero where it is not known.
    pub parent_task: Task,
    /// The end of the process that had read the request, where the connection outlived it.
    pub gone: Gone,
}

/// The end of a worker that did not end its connection: another process, which had inherited it, held it on. Then [`Stops::parent`] is about
/// this one's parent.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Gone {
    /// When it ended; zero for not.
    pub ns: u64,
    /// `task_struct.exit_code`: the signal in the low seven bits.
    pub exit_code: u32,
    /// Always zero.
    pub reserved: u32,
    /// The signal that it died of.
    pub signal: Signal,
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
