//! Packets of handshakes that this host drops: why a SYN went unanswered.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{DropReason, PacketDrop};

use crate::{
    kernel::{layout, read},
    maps::{ATTACHED, DROPS, DROPS_BESIDE, port_is_watched},
    tcp_header::{ACK, SYN, TcpHeader, header, tcp_header},
};

/// The reasons that explain a failed exchange; the others are none of our business.
#[inline(always)]
fn known(reason: u32) -> Option<DropReason> {
    if reason == layout!(drop_netfilter) {
        Some(DropReason::Netfilter)
    } else if reason == layout!(drop_rpfilter) {
        Some(DropReason::ReversePath)
    } else if reason == layout!(drop_listen_overflow) {
        Some(DropReason::ListenOverflow)
    } else if reason == layout!(drop_neighbour) {
        Some(DropReason::NeighbourFailed)
    } else {
        None
    }
}

/// A packet is dropped.
#[inline(always)]
pub fn dropped(skb: u64, reason: u32) {
    let Some(reason) = known(reason) else { return };
    if reason == DropReason::ListenOverflow
        && ATTACHED.get(0).is_some_and(|attached| attached.handshake_drops != 0)
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
        // SAFETY: the entry is copied out at once.
        let before = unsafe { DROPS.get(isn).map_or(0, |drop| drop.packets) };
        let drop = PacketDrop { ns, reason: reason as u32, packets: before + 1 };
        let _evicts = DROPS.insert(isn, &drop, 0);
    } else if header.flags & SYN != 0 {
        // SAFETY: the entry is copied out at once.
        let before = unsafe { DROPS_BESIDE.get(isn).map_or(0, |drop| drop.packets) };
        let drop = PacketDrop { ns, reason: reason as u32, packets: before + 1 };
        let _evicts = DROPS_BESIDE.insert(isn, &drop, 0);
    }
}

/// What was dropped of the handshake whose SYN has this sequence number, since `connect_ns`.
#[inline(always)]
pub fn of_handshake(isn: u32, connect_ns: u64) -> Option<PacketDrop> {
    // SAFETY: the entries are copied out at once.
    let (drop, beside) = unsafe { (DROPS.get(isn).copied(), DROPS_BESIDE.get(isn).copied()) };
    drop.or(beside).filter(|drop| drop.ns >= connect_ns)
}
