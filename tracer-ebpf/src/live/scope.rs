//! Whose connections are watched, and which upstreams.

use wire::{Endpoint, PATH_LEN, Task};

use crate::{
    kernel::{memory, read::filter, task, trust},
    live::maps::{NAMED_PATHS, WANTED},
};

/// Whether the user asked for this upstream, by address and port or by port alone.
#[inline(always)]
pub fn is_wanted(upstream: &Endpoint) -> bool {
    if filter!(upstreams) == 0 {
        return true;
    }
    let mut key = Endpoint { family: 0, ..*upstream };
    // SAFETY: only tested for presence.
    unsafe {
        if WANTED.get(key).is_some() {
            return true;
        }
        memory::unspecify(&mut key.addr);
        WANTED.get(key).is_some()
    }
}

/// Whether connections of the running task are ours.
#[inline(always)]
pub fn is_our_task(task: &Task) -> bool {
    task::is_asked_for(task) && trust::is_trusted(task)
}

/// Whether the user asked for this path, or for none in particular and it may be an upstream's.
#[inline(always)]
pub fn is_wanted_path(path: &[u8; PATH_LEN]) -> bool {
    // SAFETY: only tested for presence.
    let is_named = unsafe { NAMED_PATHS.get(path) }.is_some();
    is_named == (filter!(upstreams) != 0)
}
