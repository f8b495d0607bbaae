//! Who is believed to be nginx: the name alone is anybody's to take.
//!
//! Root's own processes are, and children of root's that still run the program of their parent, as nginx's workers do. Others are
//! once userspace has looked at their executable ([`MASTERS`]); until then they are strangers, and not watched.

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_get_current_uid_gid},
    macros::map,
    maps::{Array, HashMap},
};
use wire::Task;

use crate::kernel::{
    memory::bounded,
    read::{filter, layout, read},
};

/// Processes that userspace has found to be trusted with their children though they are not root's, by pid: when they began, in ticks
/// since boot, as /proc says it.
#[map]
static MASTERS: HashMap<u32, u64> = HashMap::with_max_entries(256, 0);

/// Threads that were found to be trusted, by when they began, each in the place that its number gives it: nothing need be told apart
/// twice, and who takes another's place is only looked at again.
#[map]
static TRUSTED: Array<u64> = Array::with_max_entries(TRUSTED_LEN, 0);

/// A power of two.
const TRUSTED_LEN: u32 = 1_024;

/// /proc's ticks, in ns (`USER_HZ`, include/asm-generic/param.h).
const TICK_NS: u64 = 10_000_000;

/// Whether the running task, which has the name, is believed to be nginx. Once it was, it is for good: workers outlive their master.
#[inline(always)]
pub fn is_trusted(task: &Task) -> bool {
    // The real user: a program that only borrows root's rights (setuid) keeps the one who started it.
    if filter!(trusts_all) != 0 || bpf_get_current_uid_gid() as u32 == 0 {
        return true;
    }
    // SAFETY: the helper takes nothing and returns the address of the running task.
    let current = unsafe { bpf_get_current_task() };
    let began: u64 = read(current, layout!(task_start_time));
    let place = bounded::<{ TRUSTED_LEN as u64 - 1 }>(u64::from(task.tid)) as u32;
    let Some(place) = TRUSTED.get_ptr_mut(place) else { return false };
    // SAFETY: map memory, aligned; another CPU may write it meanwhile, which is one store.
    if unsafe { place.read_volatile() } == began {
        return true;
    }
    let parent: u64 = read(current, layout!(task_parent));
    let is_trusted = is_roots_child(current, parent)
        || is_master(task.tgid, current)
        || is_master(read(parent, layout!(task_tgid)), parent);
    if is_trusted {
        // SAFETY: the same.
        unsafe { place.write_volatile(began) };
    }
    is_trusted
}

/// Whether root runs a task, by its real user.
#[inline(always)]
pub fn is_roots(task: u64) -> bool {
    let cred: u64 = read(task, layout!(task_cred));
    cred != 0 && read::<u32>(cred, layout!(cred_uid)) == 0
}

/// Whether root runs the parent, and the child is what the parent forked: whoever else has a parent of root's, init above all, runs
/// another program.
#[inline(always)]
fn is_roots_child(task: u64, parent: u64) -> bool {
    if !is_roots(parent) {
        return false;
    }
    let program = program(task);
    program != 0 && program == self::program(parent)
}

/// The inode of the program that a task runs; zero for the kernel's own threads.
#[inline(always)]
fn program(task: u64) -> u64 {
    let mm: u64 = read(task, layout!(task_mm));
    let exe: u64 = if mm == 0 { 0 } else { read(mm, layout!(mm_exe)) };
    if exe == 0 { 0 } else { read(exe, layout!(file_inode)) }
}

/// Whether userspace trusts the process `tgid`, which `task` is a thread of.
#[inline(always)]
fn is_master(tgid: u32, task: u64) -> bool {
    // SAFETY: copied out at once.
    let Some(began) = (unsafe { MASTERS.get(tgid) }).copied() else { return false };
    let leader: u64 = read(task, layout!(task_leader));
    read::<u64>(leader, layout!(task_start_boottime)) / TICK_NS == began
}
