//! What the kernel keeps of a socket (`struct sock`, TCP's and unix's).

use wire::{COMMON_LEN, Endpoint, FAMILY_INET, FAMILY_INET6, MISSING};

use crate::kernel::{
    memory,
    read::{Plain, filter, layout, read},
};

/// The remote and the local port, host order. The local one is 0 once the port was given back.
#[inline(always)]
pub fn ports(sk: u64) -> (u16, u16) {
    let [remote, local] = read::<[u16; 2]>(sk, layout!(dport));
    (u16::from_be(remote), local)
}

/// The local port, host order, also after the port was given back.
#[inline(always)]
pub fn lasting_local_port(sk: u64) -> u16 {
    u16::from_be(read(sk, layout!(inet_sport)))
}

/// An IPv4 address in network order, mapped into IPv6.
#[inline(always)]
pub fn mapped(addr: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), addr]
}

/// What nearly everything about a socket is found in, read in one call: each call costs more than the bytes do.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Common([u64; COMMON_LEN as usize / size_of::<u64>()]);

impl Plain for Common {}

impl Common {
    /// The start of this socket as it is now.
    #[inline(always)]
    pub fn of(sk: u64) -> Self {
        read(sk, 0)
    }

    /// Userspace has made sure that these offsets lie within, and they are those of fields of this type.
    #[inline(always)]
    fn at<T: Plain>(&self, offset: u32) -> T {
        // SAFETY: within, and aligned as the kernel's own compiler has done it; the type is plain.
        unsafe { (&raw const self.0).cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn words(&self, offset: u32) -> [u32; 4] {
        [self.at(offset), self.at(offset + 4), self.at(offset + 8), self.at(offset + 12)]
    }

    /// The address family.
    #[inline(always)]
    pub fn family(&self) -> u16 {
        self.at(layout!(family))
    }

    /// Whether this is an IPv4 or IPv6 socket.
    #[inline(always)]
    pub fn is_inet(&self) -> bool {
        let family = self.family();
        family == FAMILY_INET || family == FAMILY_INET6
    }

    /// `struct net` of the socket.
    #[inline(always)]
    pub fn net(&self) -> u64 {
        self.at(layout!(net))
    }

    /// The TCP state.
    #[inline(always)]
    pub fn state(&self) -> u8 {
        self.at(layout!(state))
    }

    /// The socket's peer.
    #[inline(always)]
    pub fn remote(&self) -> Endpoint {
        let family = self.family();
        let addr = if family == FAMILY_INET {
            mapped(self.at(layout!(daddr)))
        } else {
            self.words(layout!(v6_daddr))
        };
        Endpoint { addr, port: u16::from_be(self.at(layout!(dport))), family }
    }

    /// The peer's port, host order.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        u16::from_be(self.at(layout!(dport)))
    }

    /// The socket's own address; its port is 0 once it was given back.
    #[inline(always)]
    pub fn local(&self) -> Endpoint {
        let family = self.family();
        let addr = if family == FAMILY_INET {
            mapped(self.at(layout!(saddr)))
        } else {
            self.words(layout!(v6_saddr))
        };
        Endpoint { addr, port: self.at(layout!(dport) + 2), family }
    }
}

/// The socket's peer.
#[inline(always)]
pub fn remote(sk: u64) -> Endpoint {
    let family: u16 = read(sk, layout!(family));
    let addr =
        if family == FAMILY_INET { mapped(read(sk, layout!(daddr))) } else { read(sk, layout!(v6_daddr)) };
    Endpoint { addr, port: ports(sk).0, family }
}

/// The socket's own address.
#[inline(always)]
pub fn local(sk: u64) -> Endpoint {
    let family: u16 = read(sk, layout!(family));
    let addr =
        if family == FAMILY_INET { mapped(read(sk, layout!(saddr))) } else { read(sk, layout!(v6_saddr)) };
    Endpoint { addr, port: lasting_local_port(sk), family }
}

/// Writes the socket's own address there, piece by piece: nothing of it takes room on the stack.
///
/// # Safety
/// As [`memory::fill`]'s.
#[inline(always)]
pub unsafe fn fill_local(to: *mut Endpoint, sk: u64) {
    let family: u16 = read(sk, layout!(family));
    let v6_addr = sk.wrapping_add(u64::from(layout!(v6_saddr)));
    if family == FAMILY_INET {
        let addr = mapped(read(sk, layout!(saddr)));
        // SAFETY: the caller answers for it.
        unsafe { (&raw mut (*to).addr).write(addr) };
    } else {
        // SAFETY: the same.
        unsafe { memory::fill(&raw mut (*to).addr, v6_addr as *const _) };
    }
    let port = lasting_local_port(sk);
    // SAFETY: the same.
    unsafe {
        (&raw mut (*to).family).write(family);
        (&raw mut (*to).port).write(port);
    }
}

/// Whether this is an IPv4 or IPv6 socket.
#[inline(always)]
pub fn is_inet(sk: u64) -> bool {
    let family: u16 = read(sk, layout!(family));
    family == FAMILY_INET || family == FAMILY_INET6
}

/// Whether this is a socket of MPTCP's: not the one that the kernel listens on or sends by, but what a process has in its place.
#[inline(always)]
pub fn is_mptcp(sk: u64) -> bool {
    const IPPROTO_MPTCP: u16 = 262;
    is_inet(sk) && read::<u16>(sk, layout!(sk_protocol)) == IPPROTO_MPTCP
}

/// `struct net` of the socket.
#[inline(always)]
pub fn net(sk: u64) -> u64 {
    read(sk, layout!(net))
}

/// Whether the socket counts as one of this host.
#[inline(always)]
pub fn is_here(sk: u64) -> bool {
    let netns = filter!(netns);
    netns == 0 || read::<u32>(net(sk), layout!(net_inum)) == netns
}

/// Whether `sk_socket` is set: a process holds the socket.
#[inline(always)]
pub fn has_socket(sk: u64) -> bool {
    read::<u64>(sk, layout!(sk_socket)) != 0
}

/// The number of the socket's inode; zero while no process has it, or where the kernel does not show it.
#[inline(always)]
pub fn inode(sk: u64) -> u64 {
    if layout!(socket_inode) == MISSING || layout!(inode_number) == MISSING {
        return 0;
    }
    let socket: u64 = read(sk, layout!(sk_socket));
    if socket == 0 { 0 } else { read(socket, layout!(socket_inode) + layout!(inode_number)) }
}

/// Whether the peer has closed (`RCV_SHUTDOWN`, include/net/sock.h).
#[inline(always)]
pub fn has_peer_closed(sk: u64) -> bool {
    const RCV_SHUTDOWN: u8 = 1;
    read::<u8>(sk, layout!(sk_shutdown)) & RCV_SHUTDOWN != 0
}

/// Whether this end, and this alone, has ended its side and would still receive (`shutdown(SHUT_WR)`): close ends both at once
/// (`__tcp_close`, net/ipv4/tcp.c).
#[inline(always)]
pub fn is_half_closed(sk: u64) -> bool {
    const SEND_SHUTDOWN: u8 = 2;
    const SHUTDOWN_MASK: u8 = 3;
    read::<u8>(sk, layout!(sk_shutdown)) & SHUTDOWN_MASK == SEND_SHUTDOWN
}

/// Whether a process is inside a call on the socket; false while the network works on it.
#[inline(always)]
pub fn is_owned(sk: u64) -> bool {
    read::<u32>(sk, layout!(sk_owned)) != 0
}

/// Whether the last send found no room in the socket's buffer (`SOCK_NOSPACE`, include/linux/net.h).
#[inline(always)]
pub fn wants_room(sk: u64) -> bool {
    const SOCK_NOSPACE: u64 = 2;
    let socket: u64 = read(sk, layout!(sk_socket));
    socket != 0 && read::<u64>(socket, layout!(socket_flags)) & (1 << SOCK_NOSPACE) != 0
}

/// Data bytes sent, those sent again not counted twice.
#[inline(always)]
pub fn bytes_sent(sk: u64) -> u64 {
    read::<u64>(sk, layout!(bytes_sent)).saturating_sub(read(sk, layout!(bytes_retrans)))
}

/// Bytes in the receive queue; a FIN counts as one.
#[inline(always)]
pub fn unread(sk: u64) -> u32 {
    read::<u32>(sk, layout!(rcv_nxt)).wrapping_sub(read(sk, layout!(copied_seq)))
}

/// Whether a socket is a stream: TCP or one of unix's. Datagrams are no exchange.
#[inline(always)]
pub fn is_stream(sk: u64) -> bool {
    const SOCK_STREAM: u16 = 1;
    read::<u16>(sk, layout!(sk_type)) == SOCK_STREAM
}
