//! The TCP header of a packet.

use crate::kernel::read::{Plain, layout, read};

/// Of `struct tcphdr`: ports, sequence numbers, header length, flags.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TcpHeader {
    pub source: u16,
    pub dest: u16,
    pub seq: u32,
    pub ack_seq: u32,
    pub length: u8,
    pub flags: u8,
}

impl Plain for TcpHeader {}

pub const SYN: u8 = 2;
pub const ACK: u8 = 16;
const IPPROTO_TCP: u8 = 6;

/// Where a TCP packet's TCP header begins, from its IP header: the packet's own note of it is not set yet where
/// netfilter sees it first. IPv6 extension headers are not looked through; no handshake has any.
#[inline(always)]
pub fn tcp_header(head: u64, skb: u64) -> Option<u32> {
    let network = u32::from(read::<u16>(skb, layout!(skb_network_header)));
    let first: u8 = read(head, network);
    let (protocol, length): (u8, u32) = match first >> 4 {
        4 => (read(head, network + 9), u32::from(first & 15) * 4),
        6 => (read(head, network + 6), 40),
        _ => return None,
    };
    (protocol == IPPROTO_TCP).then_some(network + length)
}

/// The TCP header of a packet that TCP has taken.
#[inline(always)]
pub fn header(head: u64, skb: u64) -> TcpHeader {
    let transport: u16 = read(skb, layout!(skb_transport_header));
    read(head, u32::from(transport))
}
