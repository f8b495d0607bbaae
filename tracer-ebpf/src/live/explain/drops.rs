//! Packets of handshakes that this host drops: why a SYN went unanswered.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::Array};
use wire::{DropReason, PacketDrop};

use crate::{
    kernel::{
        ports::port_is_watched,
        read::{layout, read},
        recent::{self, Found, Row},
        tcp_header::{ACK, SYN, TcpHeader, header, tcp_header},
    },
    live::maps::attached,
};

/// Packets of handshakes that were dropped, by the sequence number of the client's SYN.
#[map]
static DROPS: Array<Row<PacketDrop>> = Array::with_max_entries(MASK as u32 + 1, 0);

/// The same for packets of ports that no upstream of ours is known to use: address translation may have put them there. Kept
/// apart, so that they cannot push out the others.
#[map]
static DROPS_BESIDE: Array<Row<PacketDrop>> = Array::with_max_entries(MASK as u32 + 1, 0);
const MASK: u64 = 1_023;

/// The reasons that explain a failed exchange; the others are none of our business.
#[inline(always)]
fn known(reason: u32) -> Option<DropReason> {
    macro_rules! one_of {
        ($($number:ident => $reason:ident,)*) => {
            $(if reason == layout!($number) {
                return Some(DropReason::$reason);
            })*
        };
    }
    // What this kernel lacks has a number that no reason has.
    one_of! {
        drop_netfilter => Netfilter,
        drop_rpfilter => ReversePath,
        drop_listen_overflow => ListenOverflow,
        drop_neighbour => NeighbourFailed,
        drop_tc_ingress => TcIngress,
        drop_tc_egress => TcEgress,
        drop_xdp => Xdp,
        drop_qdisc => QdiscDrop,
        drop_qdisc_overlimit => QdiscOverlimit,
        drop_qdisc_congested => QdiscCongested,
        drop_cgroup_egress => CgroupEgress,
        drop_socket_filter => SocketFilter,
        drop_security_hook => SecurityHook,
        drop_cpu_backlog => CpuBacklog,
        drop_xfrm_policy => IpsecPolicy,
        drop_in_no_routes => NoRouteIn,
        drop_out_no_routes => NoRouteOut,
        drop_neighbour_queue => NeighbourQueueFull,
        drop_neighbour_dead => NeighbourDead,
        drop_md5_not_found => Md5NotFound,
        drop_md5_unexpected => Md5Unexpected,
        drop_tcp_checksum => TcpChecksum,
        drop_ip_checksum => IpChecksum,
        drop_no_memory => NoMemory,
        drop_protocol_memory => ProtocolMemory,
        drop_full_ring => FullRing,
        drop_too_big => TooBig,
        drop_ipv6_disabled => Ipv6Disabled,
        drop_local_source => LocalSource,
        drop_invalid_source => InvalidSource,
        drop_localnet => Localnet,
        drop_device => DeviceNotReady,
    }
    None
}

/// A packet is dropped.
#[inline(always)]
pub fn dropped(skb: u64, reason: u32) {
    let Some(reason) = known(reason) else { return };
    if reason == DropReason::ListenOverflow
        && attached().is_some_and(|attached| attached.handshake_drops != 0)
    {
        return;
    }
    let head: u64 = read(skb, layout!(skb_head));
    if let Some(transport) = tcp_header(head, skb) {
        note(&read(head, transport), reason);
    }
}

/// A SYN came to a listener. With a full accept queue the kernel drops it, whatever else holds.
#[inline(always)]
pub fn syn_came(listener: u64, skb: u64) {
    if is_full(listener) {
        note(&header(read(skb, layout!(skb_head)), skb), DropReason::AcceptQueueFull);
    }
}

/// The packet that ends a handshake came to a listener, which made `child` of it, or nothing.
#[inline(always)]
pub fn handshake_ended(listener: u64, skb: u64, child: u64) {
    if child == 0 && is_full(listener) {
        note(&header(read(skb, layout!(skb_head)), skb), DropReason::ListenOverflow);
    }
}

#[inline(always)]
fn is_full(listener: u64) -> bool {
    read::<u32>(listener, layout!(sk_ack_backlog)) > read::<u32>(listener, layout!(sk_max_ack_backlog))
}

/// Writes down the drop of a packet with this header.
#[inline(always)]
fn note(header: &TcpHeader, reason: DropReason) {
    // The client's SYN, the server's answer to it, or the packet that ends the handshake: each names the SYN.
    let isn = match header.flags & (SYN | ACK) {
        SYN => u32::from_be(header.seq),
        ACK => u32::from_be(header.seq).wrapping_sub(1),
        _ => u32::from_be(header.ack_seq).wrapping_sub(1),
    };
    // SAFETY: the helper takes nothing.
    let ns = unsafe { bpf_ktime_get_ns() };
    if port_is_watched(u16::from_be(header.dest)) || port_is_watched(u16::from_be(header.source)) {
        count_in(&DROPS, isn, ns, reason);
    } else if header.flags & SYN != 0 {
        count_in(&DROPS_BESIDE, isn, ns, reason);
    }
}

#[inline(always)]
fn count_in(table: &Array<Row<PacketDrop>>, isn: u32, ns: u64, reason: DropReason) {
    let before = match recent::find::<_, MASK>(table, u64::from(isn), 1, 1) {
        Found::It(drop) => drop.packets,
        Found::Nothing | Found::MaybePushedOut => 0,
    };
    let drop = PacketDrop { ns, reason: reason as u32, packets: before + 1 };
    recent::note::<_, MASK>(table, u64::from(isn), ns, &drop);
}

/// The packet with this sequence number, if it was dropped since `since_ns`: an empty one has the number of the byte that comes next.
#[inline(always)]
pub fn of_packet(seq: u32, since_ns: u64) -> PacketDrop {
    match recent::find::<_, MASK>(&DROPS, u64::from(seq.wrapping_sub(1)), since_ns, since_ns) {
        Found::It(drop) => drop,
        Found::Nothing | Found::MaybePushedOut => PacketDrop { ns: 0, reason: 0, packets: 0 },
    }
}

/// What was dropped of the handshake whose SYN has this sequence number, since `connect_ns`.
#[inline(always)]
pub fn of_handshake(isn: u32, connect_ns: u64) -> Found<PacketDrop> {
    match recent::find::<_, MASK>(&DROPS, u64::from(isn), connect_ns, connect_ns) {
        Found::Nothing => recent::find::<_, MASK>(&DROPS_BESIDE, u64::from(isn), connect_ns, connect_ns),
        found => found,
    }
}
