//! The ports that matter: the first and cheapest test of a socket or a packet.

use aya_ebpf::{macros::map, maps::Array};
use tracer_ebpf::PORTS_LEN;

use crate::kernel::bounded;

/// Ports that a socket of ours uses, on either end.
#[map]
pub static PORTS: Array<[u8; PORTS_LEN]> = Array::with_max_entries(1, 0);

/// Whether any socket of ours has this port (host order).
#[inline(always)]
pub fn port_is_watched(port: u16) -> bool {
    // SAFETY: the array has an entry for each value of a u16.
    PORTS.get(0).is_some_and(
        |ports| unsafe { *ports.get_unchecked(bounded::<{ PORTS_LEN as u64 - 1 }>(port.into())) } != 0,
    )
}

/// Marks a port (host order) as one of ours. Writing what stands there already would take it from all other CPUs.
#[inline(always)]
pub fn watch_port(port: u16) {
    if port_is_watched(port) {
        return;
    }
    if let Some(ports) = PORTS.get_ptr_mut(0) {
        // SAFETY: the array has an entry for each value of a u16, and nobody ever writes anything but one.
        unsafe { (*ports.cast::<u8>().add(bounded::<{ PORTS_LEN as u64 - 1 }>(port.into()))) = 1 };
    }
}
