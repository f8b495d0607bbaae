//! nginx's own memory: what a program in its time can read of it.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_probe_read_user_str};
use wire::SUBJECT_LEN;

use crate::kernel::memory;

/// Reads a text of nginx's that a zero closes; what cannot be read is empty. Returns whether it was read.
#[inline(always)]
pub fn read_text<const LEN: usize>(to: *mut [u8; LEN], from: u64) -> bool {
    // SAFETY: the helper checks where it reads, and writes within the text.
    unsafe { bpf_probe_read_user_str(to.cast(), LEN as u32, from as *const _) >= 0 }
}

/// Reads `length` characters of nginx's, or as many as there is room for.
#[inline(always)]
pub fn read_characters(to: *mut [u8; SUBJECT_LEN], from: u64, length: u64) {
    const MOST: u64 = SUBJECT_LEN as u64 - 1;
    let length = memory::bounded::<MOST>(if length > MOST { MOST } else { length }) as u32;
    // SAFETY: the helper checks where it reads, and writes within the text.
    let _refused = unsafe { bpf_probe_read_user(to.cast(), length, from as *const _) };
}

/// Eight characters or a number of nginx's; zeroes where they cannot be read.
#[inline(always)]
pub fn user_word(from: u64) -> u64 {
    user_words(from).map_or(0, |[word]| word)
}

/// Several of them in a row, for each call costs more than the bytes do; none where they cannot be read.
#[inline(always)]
pub fn user_words<const COUNT: usize>(from: u64) -> Option<[u64; COUNT]> {
    // Not cleared first: the compiler would call a function for that, and there is no room on the stack for one more.
    let mut words = MaybeUninit::<[u64; COUNT]>::uninit();
    // SAFETY: the helper checks where it reads and writes all of it, whatever comes of it.
    unsafe {
        let refused = bpf_probe_read_user(words.as_mut_ptr().cast(), 8 * COUNT as u32, from as *const _);
        (refused == 0).then(|| words.assume_init())
    }
}
