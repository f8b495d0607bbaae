//! Reading the running kernel's structures, at the offsets that userspace found in its BTF.

use core::mem::MaybeUninit;

use wire::{Filters, Layout, MISSING, READ_ONLY_CAST};

use crate::kernel::memory;

/// Set by userspace before loading; read-only, so the verifier knows the values.
#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout::EMPTY;

/// Set by userspace before loading; read-only, so the verifier knows the values.
#[unsafe(no_mangle)]
pub static FILTERS: Filters = Filters {
    comm: [0; 16],
    pid: 0,
    upstreams: 0,
    own_pid: 0,
    settle_ms: 0,
    listeners: 0,
    netns: 0,
    counts_upstreams: 0,
    trusts_all: 0,
    stack_bytes: 0,
    reads_nginx: 0,
    handshake_rows: 0,
};

/// One field of [`LAYOUT`].
macro_rules! layout {
    ($field:ident) => {
        // SAFETY: a static of this program; volatile because userspace replaces its bytes before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::read::LAYOUT.$field) }
    };
}
pub(crate) use layout;

/// One field of [`FILTERS`].
macro_rules! filter {
    ($field:ident) => {
        // SAFETY: a static of this program; volatile because userspace replaces its bytes before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::read::FILTERS.$field) }
    };
}
pub(crate) use filter;

/// Types that are plain memory: every value of every byte is one of theirs.
pub trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Reads a value at `base + offset`; all zeroes where the kernel refuses: the helper clears what it cannot fill, and an instruction that
/// faults reads as zero.
#[inline(always)]
pub fn read<T: Plain>(base: u64, offset: u32) -> T {
    let from = base.wrapping_add(u64::from(offset));
    let mut value = MaybeUninit::<T>::uninit();
    if layout!(number_type) == MISSING {
        // SAFETY: bpf_probe_read_kernel checks the address itself and writes the whole value, whatever comes of it.
        unsafe { memory::fill(value.as_mut_ptr(), from as *const T) };
    } else {
        let to = value.as_mut_ptr();
        // SAFETY: pieces that the value is made of, all of them: an array, or a struct that is as aligned as its largest member.
        unsafe {
            match (size_of::<T>(), align_of::<T>()) {
                (1, _) | (_, 1) => look::<u8>(to.cast(), from, size_of::<T>()),
                (2, _) | (_, 2) => look::<u16>(to.cast(), from, size_of::<T>()),
                (4, _) | (_, 4) => look::<u32>(to.cast(), from, size_of::<T>()),
                _ => look::<u64>(to.cast(), from, size_of::<T>()),
            }
        }
    }
    // SAFETY: all of it was written.
    unsafe { value.assume_init() }
}

/// Looks at kernel memory piece by piece, each by one instruction, where [`READ_ONLY_CAST`] can be called.
///
/// # Safety
/// There is room for as many bytes, a multiple of a piece.
#[inline(always)]
unsafe fn look<P: Plain>(to: *mut P, from: u64, bytes: usize) {
    // SAFETY: to this target, a call of a constant address is one of the function of that number.
    let cast: unsafe extern "C" fn(u64, u32) -> *const P =
        unsafe { core::mem::transmute(u64::from(READ_ONLY_CAST.mark)) };
    for number in 0..bytes / size_of::<P>() {
        // Each call asks anew: to the verifier, the number must be a constant.
        let number_type = layout!(number_type);
        let place = from.wrapping_add((number * size_of::<P>()) as u64);
        // SAFETY: the caller answers for the room; what cannot be read reads as zero.
        unsafe { to.add(number).write_volatile(cast(place, number_type).read_volatile()) };
    }
}
