//! How processes become workers, and end: what [`process`] keeps of them.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::Queue};

use crate::{
    kernel::{
        put::put,
        read::{layout, read},
        task,
    },
    live::{
        explain::{
            members,
            process::{self, PROCESSES, Process},
            signals,
        },
        maps::count,
    },
};

/// Pids of those that have ended, the oldest first: what nginx has read of their ends is emitted a moment later.
#[map]
static ENDED: Queue<u32> = Queue::with_max_entries(1_024, 0);

/// The running process has taken up an exchange.
#[inline(always)]
pub fn takes_up(tgid: u32) {
    let before = PROCESSES.get_ptr_mut(tgid);
    // SAFETY: preallocated map memory.
    if before.is_some_and(|process| unsafe { (*process).ended_ns == 0 && (*process).parent != 0 }) {
        return;
    }
    let task = task::current_task();
    let parent: u64 = read(task, layout!(task_parent));
    let parent_tgid: u32 = read(parent, layout!(task_tgid));
    keep(tgid, task, parent_tgid);
    keep(parent_tgid, parent, 0);
    members::keep_current(tgid);
}

/// Keeps the process `tgid`, which `task` is a thread of, from now on: a worker, whose parent is known, or a worker's parent. In a function
/// of its own, for it is needed twice.
#[inline(never)]
fn keep(tgid: u32, task: u64, parent: u32) {
    let began_ns = task::began(task);
    let mut signals = 0;
    if let Some(before) = process::find(tgid) {
        if before.ended_ns == 0 && before.began_ns == began_ns {
            if parent != 0 {
                before.parent = parent;
            }
            return;
        }
        signals = before.signals;
    }
    let comm = read(read(task, layout!(task_leader)), layout!(task_comm));
    let mut process =
        Process { began_ns, ended_ns: 0, lost_ns: 0, exit_code: 0, signals, parent, comm, reserved: 0 };
    signals::sent_before(tgid, &mut process);
    put!(PROCESSES, tgid, &process, processes_unkept);
}

/// The process `tgid`, whose first thread is `task`, ends. Its files are still open.
#[inline(always)]
pub fn ends(tgid: u32, task: u64) {
    if let Some(process) = process::find(tgid)
        && process.ended_ns == 0
    {
        // SAFETY: the helper takes nothing.
        process.ended_ns = unsafe { bpf_ktime_get_ns() };
        process.exit_code = read(task, layout!(task_exit_code));
        if ENDED.push(tgid, 0).is_err() {
            if let Ok(Some(oldest)) = ENDED.pop() {
                forget(oldest);
            }
            if ENDED.push(tgid, 0).is_err() {
                // Nothing is emitted of it once its socket is closed, and its place is taken until its pid is used again.
                count!(processes_unkept, 1);
            }
        }
    }
}

/// Makes room of one that ended long ago, unless its pid is another's by now.
#[inline(always)]
fn forget(tgid: u32) {
    let Some(process) = process::find(tgid) else { return };
    if process.ended_ns == 0 {
        return;
    }
    let signals = process.signals;
    for number in 1..32 {
        if signals & 1 << number != 0 {
            signals::forget(tgid, number);
        }
    }
    let _gone = PROCESSES.remove(tgid);
}
