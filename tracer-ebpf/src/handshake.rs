//! Connections whose worker's end has not appeared, by the handshake's sequence numbers.
//!
//! Between two ends on this host that takes microseconds, so a small table whose places are found by arithmetic holds them nearly
//! always, at a fraction of what a hash map's insertion, look-up and removal cost; the hash map takes what finds no place there.
//! Two CPUs could take the same place at the same moment, for there is no exchange instruction before 5.12. So each begins to look at
//! another place of the row. Where they meet all the same, whoever takes an entry compares it with the connection itself, and whoever
//! misses its own entry in the end counts it as lost.

use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap},
};

use crate::{
    kernel::bounded,
    maps::{CROWDED, ConnectionId, change, count, is_any},
};

/// Places that one handshake may take; a power of two.
const WAYS: usize = 8;

/// Rows of places; a power of two. All of them together stay in a CPU's first cache: in a larger table, finding a row there
/// took longer than everything else.
const ROWS: u32 = 32;

/// One entry; free while its handshake is zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place {
    handshake: u64,
    id: ConnectionId,
}

#[map]
static JOINING: Array<[Place; WAYS]> = Array::with_max_entries(ROWS, 0);

/// What found no place in its row.
#[map]
static HANDSHAKES: HashMap<u64, ConnectionId> = HashMap::with_max_entries(16_384, 0);

/// The row of a handshake. Its sequence numbers are as good as random (RFC 6528).
#[inline(always)]
fn row(handshake: u64) -> Option<*mut Place> {
    let row = bounded::<{ ROWS as u64 - 1 }>(handshake ^ handshake >> 32);
    JOINING.get_ptr_mut(row as u32).map(|places| places.cast())
}

/// The place in its row that a handshake has.
#[inline(always)]
fn find(handshake: u64) -> Option<*mut Place> {
    holding(row(handshake)?, handshake)
}

/// The place of a row that holds a handshake, or zero for a free one: each CPU begins where others do not, and what it wrote itself
/// it finds at once.
#[inline(always)]
fn holding(row: *mut Place, handshake: u64) -> Option<*mut Place> {
    // SAFETY: the helper takes nothing.
    let first = u64::from(unsafe { bpf_get_smp_processor_id() });
    for way in 0..WAYS as u64 {
        // SAFETY: map memory; a row has that many places.
        let place = unsafe { row.add(bounded::<{ WAYS as u64 - 1 }>(first + way)) };
        // SAFETY: the same.
        if unsafe { (&raw const (*place).handshake).read_volatile() } == handshake {
            return Some(place);
        }
    }
    None
}

/// The connection's worker's end is to appear under this handshake, which is not zero.
#[inline(always)]
pub fn awaits(handshake: u64, id: ConnectionId) {
    if let Some(free) = find_free(handshake) {
        // SAFETY: map memory. What is compared comes last.
        unsafe {
            (&raw mut (*free).id.sock).write_volatile(id.sock);
            (&raw mut (*free).id.connect_ns).write_volatile(id.connect_ns);
            (&raw mut (*free).handshake).write_volatile(handshake);
        }
        return;
    }
    change(&CROWDED, 1);
    if HANDSHAKES.insert(handshake, id, 0).is_err() {
        count!(workers_untracked, 1);
    }
}

#[inline(always)]
fn find_free(handshake: u64) -> Option<*mut Place> {
    holding(row(handshake)?, 0)
}

/// The worker's end of this handshake appears: the connection that awaits it, if one does. Whether it has this handshake is for the
/// caller to make sure of.
#[inline(always)]
pub fn take(handshake: u64) -> Option<ConnectionId> {
    if let Some(place) = find(handshake) {
        // SAFETY: map memory; what is compared goes last.
        return unsafe {
            let sock = (&raw const (*place).id.sock).read_volatile();
            let connect_ns = (&raw const (*place).id.connect_ns).read_volatile();
            (&raw mut (*place).handshake).write_volatile(0);
            Some(ConnectionId { sock, connect_ns })
        };
    }
    if !is_any(&CROWDED) {
        return None;
    }
    // SAFETY: copied out at once.
    let id = unsafe { HANDSHAKES.get(handshake) }.copied()?;
    let _gone = HANDSHAKES.remove(handshake);
    Some(id)
}

/// The connection ended and no worker's end has appeared. If its entry is not there any more, one may have been passed over.
#[inline(always)]
pub fn forget(handshake: u64) {
    if take(handshake).is_none() {
        count!(workers_untracked, 1);
    }
}
