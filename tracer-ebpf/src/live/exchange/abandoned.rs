//! Worker's ends of unix sockets that nginx has given up, where the end of every unix socket is not seen: it is emitted when the process
//! that holds one closes it, or ends.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::HashMap};
use wire::WorkerEnd;

use crate::{
    kernel::{
        put::put,
        read::{layout, read},
        task,
    },
    live::{
        emit,
        exchange::worker_end,
        explain::workers,
        maps::{HELD, LESS, change, count, is_any},
    },
};

/// Open worker ends of unix exchanges that nginx gave up, by their socket.
#[map]
static ABANDONED: HashMap<u64, WorkerEnd> = HashMap::with_max_entries(1_024, 0);

/// The newest of them that a process has, by process.
#[map]
static HOLDERS: HashMap<u32, u64> = HashMap::with_max_entries(1_024, 0);

/// The end that the process holds; zero for none.
#[inline(always)]
pub fn held_by(tgid: u32) -> u64 {
    // SAFETY: copied out at once.
    if is_any(&HELD) { unsafe { HOLDERS.get(tgid) }.copied().unwrap_or(0) } else { 0 }
}

/// nginx gives up a worker's end that is open.
#[inline(always)]
pub fn keep(worker: &WorkerEnd) {
    if put!(ABANDONED, worker.sock, worker, afterwards_unkept) && worker.accepted_ns != 0 {
        hold(worker.worker.tgid, worker.sock);
    }
}

/// A new end has this address.
#[inline(always)]
pub fn forget(sk: u64) {
    let _gone = ABANDONED.remove(sk);
}

/// The running process ends, and with it closes what it holds without a system call.
#[inline(always)]
pub fn holder_dies() {
    let task = task::current();
    // SAFETY: copied out at once.
    if let Some(held) = unsafe { HOLDERS.get(task.tgid) }.copied() {
        closed(held, task.tgid);
    }
}

/// A process read from a unix socket that nginx has given up.
#[inline(always)]
pub fn read_from(sk: u64) {
    let Some(worker) = ABANDONED.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory.
    let worker = unsafe { &mut *worker };
    // The socket keeps its peer for as long as it lives: another one at this address has another peer.
    if worker.accepted_ns != 0 || read::<u64>(sk, layout!(unix_peer)) != worker.nginx_sock {
        return;
    }
    // SAFETY: the helper takes nothing.
    worker.accepted_ns = unsafe { bpf_ktime_get_ns() };
    worker.worker = task::current();
    workers::takes_up(worker.worker.tgid);
    hold(worker.worker.tgid, sk);
}

/// The process holds the worker's end of an exchange that nginx gave up. Of several that it holds the newest is followed.
#[inline(always)]
fn hold(tgid: u32, sk: u64) {
    // SAFETY: copied out at once.
    let before = unsafe { HOLDERS.get(tgid) }.copied();
    if let Some(before) = before
        && before != sk
        && ABANDONED.remove(before).is_ok()
    {
        count!(afterwards_unkept, 1);
    }
    if put!(HOLDERS, tgid, sk, afterwards_unkept) && before.is_none() {
        change(&HELD, 1);
    }
}

/// The worker's end of an exchange that nginx had given up is closed by the running process.
#[inline(always)]
pub fn closed(sk: u64, tgid: u32) {
    if HOLDERS.remove(tgid).is_ok() {
        change(&HELD, LESS);
    }
    let Some(worker) = ABANDONED.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory.
    let worker = unsafe { &mut *worker };
    if read::<u64>(sk, layout!(unix_peer)) == worker.nginx_sock {
        worker_end::closes(worker);
        emit::worker_gone(worker);
    }
    let _gone = ABANDONED.remove(sk);
}
