//! Resets that this host sends: the other end's proof of a refusal.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{Reset, tcp_state};

use crate::{
    kernel::{layout, read},
    maps::RESETS,
};

/// Offset of the sequence number in `struct tcphdr`, whose layout is the protocol's.
const SEQ: u32 = 4;

/// A reset answers `skb`; `sk` is zero where no socket took the packet. Resets are few, so none is passed over: after
/// address translation a packet's port need not be the upstream's.
#[inline(always)]
pub fn sent(sk: u64, skb: u64, reason: u32) {
    if skb == 0 {
        return;
    }
    let head: u64 = read(skb, layout!(skb_head));
    let offset: u16 = read(skb, layout!(skb_transport_header));
    let seq: u32 = read(head, u32::from(offset) + SEQ);
    let reset = Reset {
        // SAFETY: the helper takes nothing.
        ns: unsafe { bpf_ktime_get_ns() },
        reason,
        without_socket: u32::from(sk == 0),
        by_listener: u32::from(sk != 0 && read::<u8>(sk, layout!(state)) == tcp_state::LISTEN),
        reserved: 0,
    };
    let _evicts = RESETS.insert(u32::from_be(seq), &reset, 0);
}

/// The reset that answered the packet with this sequence number, sent since `connect_ns`.
#[inline(always)]
pub fn of_packet(seq: u32, connect_ns: u64) -> Option<Reset> {
    // SAFETY: the entry is copied out at once.
    let reset = unsafe { RESETS.get(seq) }.copied()?;
    (reset.ns >= connect_ns).then_some(reset)
}
