//! Receives, where only kprobes see them: what shows how one ends does not say which call it is of.

use aya_ebpf::{macros::map, maps::HashMap};

use crate::{
    kernel::{put::put, task},
    live::transport::transfer,
};

/// The receive that each thread of nginx's began last on a connection of ours: its sock and its flags. Nobody else's call pushes one out.
#[map]
static RECEIVES: HashMap<u32, [u64; 2]> = HashMap::with_max_entries(1_024, 0);

/// A receive on `sk` begins. Returns whether that is nginx's end of ours: then the call is kept.
#[inline(always)]
pub fn begins(sk: u64, flags: u64) -> bool {
    let is_ours = transfer::receive_begins(sk);
    if is_ours {
        put!(RECEIVES, task::thread(), [sk, flags], returns_missed);
    }
    is_ours
}

/// What the running thread receives from, and with which flags.
#[inline(always)]
pub fn under_way() -> Option<[u64; 2]> {
    // SAFETY: copied out at once.
    unsafe { RECEIVES.get(task::thread()) }.copied()
}

/// The running thread receives from what is not ours, or ends and receives nothing any more.
#[inline(always)]
pub fn forget() {
    let _none = RECEIVES.remove(task::thread());
}
