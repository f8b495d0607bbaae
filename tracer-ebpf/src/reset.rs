//! Resets that this host sends: the other end's proof of a refusal.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::Reset;

use crate::{
    kernel::{layout, read},
    maps::{RESETS, port_is_watched},
};

/// Of `struct tcphdr`, whose layout is the protocol's: source port, destination port, sequence number.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct TcpHeader {
    source: u16,
    dest: u16,
    seq: u32,
}

/// A reset answers `skb`; `sk` is zero where no socket took the packet.
#[inline(always)]
pub fn sent(sk: u64, skb: u64, reason: u32) {
    if skb == 0 {
        return;
    }
    let head: u64 = read(skb, layout!(skb_head));
    let offset: u16 = read(skb, layout!(skb_transport_header));
    let header: TcpHeader = read(head, u32::from(offset));
    if !port_is_watched(u16::from_be(header.dest)) {
        return;
    }
    let reset = Reset {
        // SAFETY: the helper takes nothing.
        ns: unsafe { bpf_ktime_get_ns() },
        reason,
        without_socket: u32::from(sk == 0),
    };
    let _evicts = RESETS.insert(u32::from_be(header.seq), &reset, 0);
}

/// The reset that answered the SYN with this sequence number, sent since `connect_ns`.
#[inline(always)]
pub fn of_syn(isn: u32, connect_ns: u64) -> Option<Reset> {
    // SAFETY: the entry is copied out at once.
    let reset = unsafe { RESETS.get(isn) }.copied()?;
    (reset.ns >= connect_ns).then_some(reset)
}
