//! The ports that matter: the first and cheapest test of a socket or a packet.

use aya_ebpf::{macros::map, maps::Array};

use crate::kernel::memory::bounded;

/// A power of two: so few that all of them stay in a CPU's first cache. Ports share them, and a socket that is taken for one of ours is only
/// looked up in vain.
const PLACES: usize = 4_096;

/// Ports that a socket of ours uses, on either end.
#[map]
static PORTS: Array<[u8; PLACES]> = Array::with_max_entries(1, 0);

/// Whether any socket of ours may have this port (host order).
#[inline(always)]
pub fn port_is_watched(port: u16) -> bool {
    // SAFETY: the index is bounded.
    PORTS.get(0).is_some_and(
        |ports| unsafe { *ports.get_unchecked(bounded::<{ PLACES as u64 - 1 }>(port.into())) } != 0,
    )
}

/// Marks a port (host order) as one of ours. Writing what stands there already would take it from all other CPUs.
#[inline(always)]
pub fn watch_port(port: u16) {
    if port_is_watched(port) {
        return;
    }
    if let Some(ports) = PORTS.get_ptr_mut(0) {
        // SAFETY: the index is bounded, and nobody ever writes anything but one.
        unsafe { (*ports.cast::<u8>().add(bounded::<{ PLACES as u64 - 1 }>(port.into()))) = 1 };
    }
}
