//! Packets of handshakes that this host drops: why a SYN went unanswered.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{DropReason, PacketDrop};

use crate::{
    kernel::{layout, read},
    maps::{DROPS, port_is_watched},
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

/// A packet is dropped.
#[inline(always)]
pub fn dropped(skb: u64, reason: u32) {
    let Some(reason) = known(reason) else { return };
    let head: u64 = read(skb, layout!(skb_head));
    if !is_tcp(head, skb) {
        return;
    }
    let transport: u16 = read(skb, layout!(skb_transport_header));
    let header: TcpHeader = read(head, u32::from(transport));
    // The client's SYN, the server's answer to it, or the packet that ends the handshake: each names the SYN.
    let isn = match header.flags & (SYN | ACK) {
        SYN => u32::from_be(header.seq),
        ACK => u32::from_be(header.seq).wrapping_sub(1),
        _ => u32::from_be(header.ack_seq).wrapping_sub(1),
    };
    if !port_is_watched(u16::from_be(header.dest)) && !port_is_watched(u16::from_be(header.source)) {
        return;
    }
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
