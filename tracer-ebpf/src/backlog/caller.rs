//! Who calls connect, and whether that is nginx.

use wire::{Task, accept_queue::STRANGER};

use crate::kernel::{task, trust};

/// The running task, as a client. One that has the name of those whose upstreams matter and is not one of them, for another process was
/// asked for or it is not believed, has no thread.
#[inline(always)]
pub fn client() -> Task {
    let mut task = task::current();
    if task::has_wanted_name(&task) && !(task::is_asked_for(&task) && trust::is_trusted(&task)) {
        task.tid = STRANGER;
    }
    task
}

/// Whether this is a client whose upstreams matter.
#[inline(always)]
pub fn is_nginx(task: &Task) -> bool {
    task.tid != STRANGER && task::has_wanted_name(task)
}
