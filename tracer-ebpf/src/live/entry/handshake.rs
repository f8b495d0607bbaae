//! Connections whose worker's end has not appeared, by the handshake's sequence numbers.
//!
//! Between two ends on this host that takes microseconds, so a small table whose places are found by arithmetic holds them nearly
//! always, at a fraction of what a hash map's insertion, look-up and removal cost. Connections to other hosts stay for as long as they are
//! open, and a large table of the same kind takes them; the hash map takes what finds no place there either.
//! Two CPUs could take the same place at the same moment, for there is no exchange instruction before 5.12. So each begins to look at
//! another place of the row. Where they meet all the same, whoever takes an entry compares it with the connection itself, and whoever
//! misses its own entry in the end counts it as lost.

use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    macros::map,
    maps::{Array, HashMap},
};

use crate::{
    kernel::{memory::bounded, read::filter},
    live::maps::{CROWDED, change, count, is_any},
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
    /// nginx's socket.
    sock: u64,
}

#[map]
static JOINING: Array<[Place; WAYS]> = Array::with_max_entries(ROWS, 0);

/// What found no place in its row there. Userspace sets the size before loading, and says how many rows that is.
#[map]
static WAITING: Array<[Place; WAYS]> = Array::with_max_entries(2_048, 0);

/// nginx's sockets by the handshakes that found no place there. Sized likewise.
#[map]
static HANDSHAKES: HashMap<u64, u64> = HashMap::with_max_entries(1_024, 0);

/// A handshake's number among so many rows, a power of two. Its sequence numbers are as good as random (RFC 6528).
#[inline(always)]
fn number(handshake: u64, rows: u32) -> u32 {
    (handshake ^ handshake >> 32) as u32 & rows.wrapping_sub(1)
}

/// A handshake's row in the small table, where it is looked for first.
#[inline(always)]
fn joining(handshake: u64) -> Option<*mut Place> {
    JOINING.get_ptr_mut(number(handshake, ROWS)).map(|row| row.cast())
}

/// Its row in the large one.
#[inline(always)]
fn waiting(handshake: u64) -> Option<*mut Place> {
    WAITING.get_ptr_mut(number(handshake, filter!(handshake_rows))).map(|row| row.cast())
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

/// Notes nginx's socket in a row. Returns whether there was room.
#[inline(always)]
fn note(row: Option<*mut Place>, handshake: u64, sock: u64) -> bool {
    let Some(free) = row.and_then(|row| holding(row, 0)) else { return false };
    // SAFETY: map memory. What is compared comes last.
    unsafe {
        (&raw mut (*free).sock).write_volatile(sock);
        (&raw mut (*free).handshake).write_volatile(handshake);
    }
    true
}

/// Takes nginx's socket out of a row.
#[inline(always)]
fn take_from(row: Option<*mut Place>, handshake: u64) -> Option<u64> {
    let place = holding(row?, handshake)?;
    // SAFETY: map memory; what is compared goes last.
    unsafe {
        let sock = (&raw const (*place).sock).read_volatile();
        (&raw mut (*place).handshake).write_volatile(0);
        Some(sock)
    }
}

/// The worker's end of the connection that nginx's `sock` is the other end of is to appear under this handshake, which is not zero.
#[inline(always)]
pub fn awaits(handshake: u64, sock: u64) {
    if note(joining(handshake), handshake, sock) {
        return;
    }
    change(&CROWDED, 1);
    if !note(waiting(handshake), handshake, sock) && HANDSHAKES.insert(handshake, sock, 0).is_err() {
        count!(workers_untracked, 1);
    }
}

/// The worker's end of this handshake appears: nginx's socket of the connection that awaits it, if one does. Whether that connection has this
/// handshake is for the caller to make sure of.
#[inline(always)]
pub fn take(handshake: u64) -> Option<u64> {
    if let Some(sock) = take_from(joining(handshake), handshake) {
        return Some(sock);
    }
    if !is_any(&CROWDED) {
        return None;
    }
    if let Some(sock) = take_from(waiting(handshake), handshake) {
        return Some(sock);
    }
    // SAFETY: copied out at once.
    let sock = unsafe { HANDSHAKES.get(handshake) }.copied()?;
    let _gone = HANDSHAKES.remove(handshake);
    Some(sock)
}

/// The connection ended and no worker's end has appeared. If its entry is not there any more, one may have been passed over.
#[inline(always)]
pub fn forget(handshake: u64) {
    if take(handshake).is_none() {
        count!(workers_untracked, 1);
    }
}
