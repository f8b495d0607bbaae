//! What dropped the packets of a handshake on this host, by the kernel's reason (include/net/dropreason-core.h).

use wire::DropReason;

/// Who or what drops packets for this reason; none for those that have a cause of their own.
pub(super) fn by(reason: DropReason) -> Option<&'static str> {
    use DropReason::*;
    Some(match reason {
        Netfilter | ReversePath | ListenOverflow | AcceptQueueFull | NeighbourFailed => return None,
        TcIngress => "a tc filter, or a BPF program in its place, on an interface's way in",
        TcEgress => "a tc filter, or a BPF program in its place, on an interface's way out",
        Xdp => "an XDP program of an interface",
        QdiscDrop => "the queueing discipline of an interface",
        QdiscOverlimit => "the queueing discipline of an interface, whose queue was full",
        QdiscCongested => "the queueing discipline of an interface, against congestion",
        CgroupEgress => "a BPF program of a cgroup, on the way out",
        SocketFilter => "a socket's filter, or a BPF program of a cgroup on the way in",
        SecurityHook => "a security module",
        CpuBacklog => "a CPU's full backlog of packets",
        IpsecPolicy => "an IPsec policy",
        NoRouteIn => "the lack of a route for it when it came in",
        NoRouteOut => "the lack of a route for it on the way out",
        NeighbourQueueFull => "the full queue of a neighbour whose link address is not known yet",
        NeighbourDead => "a neighbour's entry that was being removed",
        Md5NotFound => "TCP, for it lacks an MD5 signature that this host expects",
        Md5Unexpected => "TCP, for it has an MD5 signature that this host does not expect",
        TcpChecksum => "TCP, for its checksum was wrong",
        IpChecksum => "IP, for its checksum was wrong",
        NoMemory => "the lack of memory",
        ProtocolMemory => "TCP's limit of memory",
        FullRing => "a virtual interface's full ring",
        TooBig => "IP, for it was larger than the MTU",
        Ipv6Disabled => "IPv6, which is disabled on the interface",
        LocalSource => "IP, for it came from outside with an address of this host's own",
        InvalidSource => "IP, for its source address is none",
        Localnet => "IP, for a loopback address came from outside",
        DeviceNotReady => "an interface that was not up",
    })
}

/// Where to look.
pub(super) fn advice(reason: DropReason) -> &'static str {
    use DropReason::*;
    match reason {
        TcIngress | TcEgress | Xdp => {
            "`bpftool net` and `tc filter show` on the interfaces between nginx and the upstream: a container network's policy, mostly."
        }
        QdiscDrop | QdiscOverlimit | QdiscCongested => {
            "`tc -s qdisc` of the interfaces on the way: a queue that is too short, a rate limit, or more traffic than the link takes."
        }
        CgroupEgress | SocketFilter => {
            "`bpftool cgroup tree`: IPAddressDeny= or another filter of nginx's or the upstream's unit, or a container network's policy."
        }
        SecurityHook => "the security module's log (`ausearch -m avc`): labels of packets and peers.",
        CpuBacklog => {
            "net.core.netdev_max_backlog, and which CPU handles all packets (`/proc/net/softnet_stat`)."
        }
        IpsecPolicy => "`ip xfrm policy`: one that wants these packets encrypted, and no way to do so.",
        NoRouteIn | NoRouteOut | NeighbourQueueFull | NeighbourDead => {
            "routes and the neighbour table between nginx and the upstream: `ip route get`, `ip neigh`."
        }
        NoMemory | ProtocolMemory => "memory of the host, and net.ipv4.tcp_mem.",
        _ => "`ip -s -s link` and `nstat` on this host: the kernel's reason has a counter there.",
    }
}
