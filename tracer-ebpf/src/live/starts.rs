//! When a process of ours begins to run another binary, and when nginx is told to read its configuration again: userspace looks at
//! both.

use wire::{Header, Kind, Started, Task};

use crate::{
    kernel::{
        read::{filter, layout, read},
        task, trust,
    },
    live::{
        maps::{RING, count},
        scope,
    },
};

/// nginx's master reads its configuration again (`NGX_RECONFIGURE_SIGNAL`, src/core/ngx_config.h).
const SIGHUP: u32 = 1;

/// The running process has begun to run another binary.
#[inline(always)]
pub fn begins() {
    let task = task::current();
    if scope::is_our_task(&task) {
        emit(task);
    }
}

/// A signal was sent to `task`. Only root's own nginx is believed what its configuration says.
#[inline(always)]
pub fn signalled(number: u32, task: u64) {
    if number != SIGHUP {
        return;
    }
    let tgid: u32 = read(task, layout!(task_tgid));
    let started = Task { tgid, tid: tgid, comm: read(task, layout!(task_comm)) };
    let pid = filter!(pid);
    if task::has_wanted_name(&started) && (pid == 0 || pid == tgid) && trust::is_roots(task) {
        emit(started);
    }
}

#[inline(always)]
fn emit(task: Task) {
    let Some(mut entry) = RING.reserve::<Started>(0) else {
        count!(lost, 1);
        return;
    };
    entry.write(Started {
        header: Header { kind: Kind::Started as u32, len: size_of::<Started>() as u32 },
        task,
    });
    entry.submit(0);
}
