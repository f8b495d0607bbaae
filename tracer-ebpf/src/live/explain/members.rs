//! The control groups of processes that may be gone when they are asked for: workers, and whoever signals them or their parents. Written
//! once in a worker's life and at such signals, and read by userspace when an exchange has failed.

use aya_ebpf::{helpers::bpf_get_current_cgroup_id, macros::map, maps::LruHashMap};
use wire::Member;

use crate::kernel::{put::put, task};

/// By process; of too many, whoever was not looked at for longest goes: those that live are in /proc.
#[map]
static MEMBERS: LruHashMap<u32, Member> = LruHashMap::with_max_entries(4_096, 0);

/// Keeps where the running process is. In a function of its own, for its room on the stack.
#[inline(never)]
pub fn keep_current(tgid: u32) {
    // SAFETY: the helper takes nothing.
    let cgroup = unsafe { bpf_get_current_cgroup_id() };
    let member = Member { began_ns: task::began(task::current_task()), cgroup };
    put!(MEMBERS, tgid, &member, members_unkept);
}
