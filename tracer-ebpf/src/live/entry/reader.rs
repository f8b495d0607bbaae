//! Which ends were read from: a worker reads many times, and only the first one shows anything.

use aya_ebpf::{macros::map, maps::Array};

use crate::kernel::memory::bounded;

/// Sockets that were read from while they were a worker's end of ours, each in the place that its address gives it: a worker reads many
/// times, and only the first one shows anything.
#[map]
static READ: Array<u64> = Array::with_max_entries(READ_LEN, 0);

/// A power of two.
const READ_LEN: u32 = 4_096;

/// Where it is noted that `sk` was read from, if the place says its address.
#[inline(always)]
pub fn place_of_reader(sk: u64) -> Option<*mut u64> {
    // The kernel's allocator aligns sockets by 64 bytes.
    READ.get_ptr_mut(bounded::<{ READ_LEN as u64 - 1 }>(sk >> 6 ^ sk >> 18) as u32)
}

/// Whether `sk` is an end of ours from which a process is known to have read.
#[inline(always)]
pub fn is_read_from(sk: u64) -> bool {
    // SAFETY: map memory; an entry is a word.
    place_of_reader(sk).is_some_and(|read| unsafe { read.read_volatile() } == sk)
}

/// A new end, of either side, has the address `sk`, from which nobody has read yet.
#[inline(always)]
pub fn forget(sk: u64) {
    if let Some(read) = place_of_reader(sk) {
        // SAFETY: map memory; an entry is a word.
        unsafe { read.write_volatile(0) };
    }
}
