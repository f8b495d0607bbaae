//! Who calls connect, and whether that is nginx.

use wire::{Task, accept_queue::STRANGER};

use crate::kernel::{read, task, trust};

/// The running task, as a client. One that has the name of those whose upstreams matter and is not believed to be one of them has no
/// thread.
#[inline(always)]
pub fn client() -> Task {
    let mut task = task::current();
    if has_name(&task) && !trust::is_trusted(&task) {
        task.tid = STRANGER;
    }
    task
}

/// Whether this is a client whose upstreams matter.
#[inline(always)]
pub fn is_nginx(task: &Task) -> bool {
    task.tid != STRANGER && has_name(task)
}

#[inline(always)]
fn has_name(task: &Task) -> bool {
    task::is_named(task, &read::FILTERS.comm)
}
