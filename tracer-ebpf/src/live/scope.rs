//! Whose connections are watched, and which upstreams.

use wire::{Endpoint, PATH_LEN, Task};

use crate::{
    kernel::{
        memory,
        read::{self, filter},
        task, trust,
    },
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
    is_asked_for(task) && trust::is_trusted(task)
}

/// Whether the running task is called what ours are, and is not one that was left out.
#[inline(always)]
pub fn is_asked_for(task: &Task) -> bool {
    let pid = filter!(pid);
    is_named(task)
        && task.tgid != filter!(own_pid)
        && (pid == 0 || pid == task.tgid || pid == task::current_parent())
}

/// Whether a task is called what ours are.
#[inline(always)]
pub fn is_named(task: &Task) -> bool {
    let name = &read::FILTERS.comm;
    // SAFETY: a reference; volatile as in `filter!`.
    let has_name = unsafe { name.as_ptr().read_volatile() } != 0;
    !has_name || task::is_named(task, name)
}

/// Whether the user asked for this path, or for none in particular and it may be an upstream's.
#[inline(always)]
pub fn is_wanted_path(path: &[u8; PATH_LEN]) -> bool {
    // SAFETY: only tested for presence.
    let is_named = unsafe { NAMED_PATHS.get(path) }.is_some();
    is_named == (filter!(upstreams) != 0)
}
