//! What one owner may take of the places for open exchanges. Only once somebody found none left does userspace look who holds them
//! ([`REFUSED`]); whoever holds more than half is then held to that ([`GREEDY`]).

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use wire::Task;

use crate::{
    kernel::{memory, task},
    live::maps::count,
};

/// Processes that found no place since userspace looked last: how often.
#[map]
static REFUSED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(256, 0);

/// Masters that get no further place, they and their children.
#[map]
static GREEDY: HashMap<u32, u32> = HashMap::with_max_entries(64, 0);

/// How many those are, so that nobody need be looked up while there are none.
#[map]
static GREEDY_COUNT: Array<u32> = Array::with_max_entries(1, 0);

/// Whether the running task's owner has had his share.
#[inline(always)]
pub fn is_used_up(task: &Task) -> bool {
    // SAFETY: a plain look at a number that userspace writes.
    if GREEDY_COUNT.get(0).is_none_or(|greedy| unsafe { core::ptr::read_volatile(greedy) == 0 }) {
        return false;
    }
    // SAFETY: only tested for presence.
    unsafe { GREEDY.get(task.tgid).is_some() || GREEDY.get(task::current_parent()).is_some() }
}

/// A connection of the running task finds no place, or none is left to it: it is not watched, and counted.
#[inline(always)]
pub fn refused(task: &Task) {
    count!(untracked, 1);
    let before = REFUSED.get_ptr_mut(task.tgid);
    if let Some(refused) = before {
        // SAFETY: preallocated map memory.
        unsafe { memory::add(refused, 1) };
        return;
    }
    // Evicts who has waited longest; one that finds no place again comes back.
    let _one_of_many = REFUSED.insert(task.tgid, 1, 0);
}
