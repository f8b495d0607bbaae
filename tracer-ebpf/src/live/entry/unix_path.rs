//! The paths of unix upstreams. Each is kept once, for as long as the program runs: many exchanges are open at once, of few paths, and of TCP
//! there is none.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use wire::PATH_LEN;

/// Paths by their number.
#[map]
static UNIX_PATHS: HashMap<u64, [u8; PATH_LEN]> = HashMap::with_max_entries(1_024, 0);

/// A path, word by word.
const WORDS: usize = PATH_LEN / size_of::<u32>();

/// The word of a path that stands there.
#[inline(always)]
fn word(path: &[u8; PATH_LEN], number: usize) -> u32 {
    // SAFETY: within the path; what is in a map or on the stack is aligned by four.
    unsafe { path.as_ptr().cast::<u32>().add(number).read_volatile() }
}

/// The number of a path: never zero. A zero closes it, and nothing but zeroes follows.
#[inline(always)]
fn number(path: &[u8; PATH_LEN]) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut number = SPREAD;
    for at in 0..WORDS {
        let word = word(path, at);
        if word == 0 {
            break;
        }
        number = (number ^ u64::from(word)).wrapping_mul(SPREAD);
        number ^= number >> 32;
    }
    number | 1
}

/// Whether these are the same path.
#[inline(always)]
fn is_same(one: &[u8; PATH_LEN], other: &[u8; PATH_LEN]) -> bool {
    for at in 0..WORDS {
        let word = word(one, at);
        if word != self::word(other, at) {
            return false;
        }
        if word == 0 {
            break;
        }
    }
    true
}

/// The number by which [`of`] gives this path, which lies in map memory or on the stack; zero where there is no room for it.
#[inline(never)]
pub fn keep(path: &[u8; PATH_LEN]) -> u64 {
    let number = number(path);
    if of(number).is_none() {
        // Another CPU may be first.
        let _kept_or_full = UNIX_PATHS.insert(number, path, BPF_NOEXIST.into());
    }
    match of(number) {
        Some(kept) if is_same(kept, path) => number,
        Some(_) | None => 0,
    }
}

/// The path of this number; none of zero.
#[inline(always)]
pub fn of<'a>(number: u64) -> Option<&'a [u8; PATH_LEN]> {
    // SAFETY: what is in the map stays there as it is.
    unsafe { UNIX_PATHS.get(number) }
}
