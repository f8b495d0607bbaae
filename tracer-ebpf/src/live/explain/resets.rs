//! Resets that this host sends: the other end's proof of a refusal.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::Array};
use wire::{Reset, tcp_state};

use crate::kernel::{
    read::{layout, read},
    recent::{self, Found, Row},
};

/// Resets that this host sent, by the sequence number they answer.
#[map]
static RESETS: Array<Row<Reset>> = Array::with_max_entries(MASK as u32 + 1, 0);
const MASK: u64 = 2_047;

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
    recent::note::<_, MASK>(&RESETS, u64::from(u32::from_be(seq)), reset.ns, &reset);
}

/// When a reset answered the packet with this sequence number, which no socket took, since `since_ns`; zero for never.
#[inline(always)]
pub fn without_socket(seq: u32, since_ns: u64) -> u64 {
    let moment = |reset: *const Reset| {
        // SAFETY: map memory, which others may write meanwhile; then the moment is not believed.
        let (ns, without_socket) = unsafe {
            ((&raw const (*reset).ns).read_volatile(), (&raw const (*reset).without_socket).read_volatile())
        };
        if without_socket == 0 { 0 } else { ns }
    };
    match recent::find_with::<Reset, u64, MASK>(&RESETS, u64::from(seq), since_ns, since_ns, moment) {
        Found::It(ns) => ns,
        Found::Nothing | Found::MaybePushedOut => 0,
    }
}

/// The reset that answered the packet with this sequence number, sent since `connect_ns`.
#[inline(always)]
pub fn of_packet(seq: u32, connect_ns: u64) -> Found<Reset> {
    recent::find::<_, MASK>(&RESETS, u64::from(seq), connect_ns, connect_ns)
}
