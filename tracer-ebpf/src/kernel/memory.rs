//! Memory of a map's, the ring buffer's or the stack's, written, cleared and compared as verifiers and the compiler both take it.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

/// Copies a value in one call. For what is larger than a few words the compiler would call its own copying loop, which takes a
/// byte at a time, in the kernel and before that in the verifier.
///
/// # Safety
/// `to` is a value's memory: the map's, the ring buffer's or the stack's.
#[inline(always)]
pub unsafe fn fill<T>(to: *mut T, from: *const T) {
    // SAFETY: the helper checks where it reads; the caller answers for where it writes.
    let _cleared = unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from.cast()) };
}

/// Clears a value in one call, for the same reason: there is nothing to read at address zero.
///
/// # Safety
/// As [`fill`]'s; all zeroes must be a value of the type.
#[inline(always)]
pub unsafe fn clear<T>(to: *mut T) {
    // SAFETY: the same.
    unsafe { fill(to, core::ptr::null()) }
}

/// A value of all zeroes in that room: what is too large to be written word by word belongs on the stack, for a map's entry for each CPU
/// is another task's as well where the kernel preempts programs.
///
/// # Safety
/// All zeroes must be a value of the type.
#[inline(always)]
pub unsafe fn cleared<T>(room: &mut MaybeUninit<T>) -> &mut T {
    // SAFETY: the caller answers for the value.
    unsafe {
        clear(room.as_mut_ptr());
        room.assume_init_mut()
    }
}

/// Whether two addresses are the same, word by word: written as one, the compiler calls its loop, which takes a byte at a time. Without a
/// branch for each word, which verifiers would follow each.
#[inline(always)]
pub fn is_same(one: &[u32; 4], other: &[u32; 4]) -> bool {
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
}

/// Clears an address, word by word: written as one, the compiler calls its loop.
#[inline(always)]
pub fn unspecify(addr: &mut [u32; 4]) {
    for word in addr {
        // SAFETY: a reference.
        unsafe { core::ptr::write_volatile(word, 0) };
    }
}

/// An index that has no other bits than `MASK`. A mask in inline assembly: LLVM drops a mask or a comparison that it finds redundant, and
/// verifiers before 7.0, to which a byte swap of whatever width yields any number, then lose the bound.
#[inline(always)]
pub fn bounded<const MASK: u64>(mut index: u64) -> usize {
    // SAFETY: a mask, and nothing else.
    unsafe {
        core::arch::asm!("{index} &= {mask}", index = inout(reg) index, mask = const MASK, options(pure, nomem, nostack));
    }
    index as usize
}

/// Adds to a counter in a map, atomically.
///
/// # Safety
/// The counter is in a map's memory and aligned.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, by: u64) {
    // SAFETY: as the caller says. Inline because core has no atomic addition for this target; this is the instruction every
    // kernel with BPF knows (BPF_ATOMIC | BPF_ADD).
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {by}",
            counter = in(reg) counter,
            by = in(reg) by,
            options(nostack),
        );
    }
}
