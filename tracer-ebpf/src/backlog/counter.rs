//! The kernel's own count of packets that met a full accept queue (ListenOverflows), which each processor keeps for itself: the
//! packet that it has just done with is the one that it counted last.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use wire::{MISSING, accept_queue::Places};

use crate::{
    backlog::maps::{ANCHOR, COUNTED, CounterKey},
    kernel::read::{layout, read},
};

/// Set by userspace before loading; read-only, so the verifier knows the values.
#[unsafe(no_mangle)]
pub static PLACES: Places = Places::NONE;

/// What userspace knows of the running kernel.
#[inline(always)]
pub fn places() -> Places {
    // SAFETY: a static of this program; volatile because userspace replaces its bytes before loading.
    unsafe { core::ptr::read_volatile(&raw const PLACES) }
}

/// A pointer as a plain number: the verifier does not know what comes out of memory.
#[inline(always)]
fn plain(pointer: u64) -> u64 {
    let kept = [pointer];
    read(kept.as_ptr() as u64, 0)
}

/// The distance from a per-processor pointer of the kernel's to this processor's own copy (`this_cpu_ptr`): that of a map's entry.
#[inline(always)]
fn distance() -> Option<u64> {
    let own = plain(ANCHOR.get_ptr(0)? as u64);
    let entry: u64 = read(plain((&raw const ANCHOR) as u64), layout!(array_pptrs));
    (entry != 0).then(|| own.wrapping_sub(entry))
}

/// Whether this processor has counted an overflow in a network namespace since it was asked last; none where that cannot be
/// known, the first time included. To be asked whenever a packet of a watched port is done with, in the context that dealt with it.
#[inline(always)]
pub fn has_risen(net: u64) -> Option<bool> {
    let places = places();
    if places.listen_overflows == 0 || layout!(net_statistics) == MISSING || layout!(array_pptrs) == MISSING {
        return None;
    }
    // SAFETY: the helper takes nothing.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let counters = read::<u64>(net, layout!(net_statistics)).wrapping_add(distance()?);
    let now: u64 = read(counters, places.listen_overflows as u32 * 8);
    let key = CounterKey { net, cpu: u64::from(cpu) };
    let Some(before) = COUNTED.get_ptr_mut(key) else {
        let _evicts = COUNTED.insert(key, now, 0);
        return None;
    };
    // SAFETY: preallocated map memory, which only this processor writes.
    let before = unsafe { core::mem::replace(&mut *before, now) };
    Some(before != now)
}
