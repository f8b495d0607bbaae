//! Packets of handshakes that this host drops: why a SYN went unanswered.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{DropReason, PacketDrop};

use crate::{
    kernel::{layout, read},
    maps::{ATTACHED, DROPS, port_is_watched},
};

/// Of `struct tcphdr`: ports, sequence numbers, header length, flags.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct TcpHeader {
    source: u16,
    dest: u16,
    seq: u32,
    ack_seq: u32,
    length: u8,
    flags: u8,
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const IPPROTO_TCP: u8 = 6;

/// The reasons that explain a failed exchange; the others are none of our business.
#[inline(always)]
fn known(reason: u32) -> Option<DropReason> {
    if reason == layout!(drop_netfilter) {
        Some(DropReason::Netfilter)
    } else if reason == layout!(drop_rpfilter) {
        Some(DropReason::ReversePath)
    } else if reason == layout!(drop_listen_overflow) {
        Some(DropReason::ListenOverflow)
    } else {
        None
    }
}

#[inline(always)]
fn is_tcp(head: u64, skb: u64) -> bool {
    let network: u16 = read(skb, layout!(skb_network_header));
    let version: u8 = read(head, u32::from(network));
    let protocol: u8 = match version >> 4 {
        4 => read(head, u32::from(network) + 9),
        6 => read(head, u32::from(network) + 6),
        _ => 0,
    };
    protocol == IPPROTO_TCP
}

#[inline(always)]
fn header(head: u64, skb: u64) -> TcpHeader {
    let transport: u16 = read(skb, layout!(skb_transport_header));
    read(head, u32::from(transport))
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
    if is_tcp(head, skb) {
        note(&header(head, skb), reason);
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
    if !port_is_watched(u16::from_be(header.dest)) && !port_is_watched(u16::from_be(header.source)) {
        return;
    }
    // The client's SYN, the server's answer to it, or the packet that ends the handshake: each names the SYN.
    let isn = match header.flags & (SYN | ACK) {
        SYN => u32::from_be(header.seq),
        ACK => u32::from_be(header.seq).wrapping_sub(1),
        _ => u32::from_be(header.ack_seq).wrapping_sub(1),
    };
    // SAFETY: the helper takes nothing; the entry is copied out at once.
    let (ns, before) = unsafe { (bpf_ktime_get_ns(), DROPS.get(isn).map_or(0, |drop| drop.packets)) };
    let _evicts = DROPS.insert(isn, &PacketDrop { ns, reason: reason as u32, packets: before + 1 }, 0);
}

/// What was dropped of the handshake whose SYN has this sequence number, since `connect_ns`.
#[inline(always)]
pub fn of_handshake(isn: u32, connect_ns: u64) -> Option<PacketDrop> {
    // SAFETY: the entry is copied out at once.
    let dropped = unsafe { DROPS.get(isn) }.copied()?;
    (dropped.ns >= connect_ns).then_some(dropped)
}
