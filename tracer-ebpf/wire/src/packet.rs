//! What became of packets: dropped, reset, answered by ICMP.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $kernel:literal;)*) => {
        /// Why the kernel dropped a packet, of those reasons that explain failed exchanges. The running kernel's own numbers
        /// change with every release.
        #[repr(u32)]
        #[cfg_attr(feature = "user", derive(zerocopy::TryFromBytes))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason {
            $($(#[$doc])* $name = $number,)*
        }

        impl DropReason {
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

#[cfg(feature = "user")]
impl PacketDrop {
    /// Why the last one was dropped; none where none was, or for another reason than these.
    pub fn why(&self) -> Option<DropReason> {
        let reason: Result<DropReason, _> = zerocopy::try_transmute!(self.reason);
        reason.ok().filter(|_| self.ns != 0)
    }
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
