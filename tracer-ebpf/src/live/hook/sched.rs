//! Hooks of processes (kernel/exit.c).

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    kernel::{preemption::Undisturbed, standby::with_standby},
    live::{
        exchange::abandoned,
        explain::{word, workers},
        fallback, starts,
        transport::{connect, receives, unix},
    },
};

/// Mark these events among those that standby instances see ([`crate::kernel::standby`]).
const EXITS: u64 = 1 << 44;
const UNIX_ENDS: u64 = 1 << 50;

with_standby! {
    /// `sched_process_exit(struct task_struct *p, ...)`, since 2.6.23; called by the exiting thread, before it closes its
    /// files.
    "sched_process_exit":
    sched_process_exit, sched_process_exit_body, sched_process_exit_1, sched_process_exit_2, sched_process_exit_3;
    |ctx| (ctx.arg::<u64>(0), EXITS) => exits(ctx.arg(0))

    /// The same, for a process of ours that has unix exchanges open; attached with the hooks of system calls. A program of its
    /// own because `bpf_for_each_map_elem` is there since 5.13 only.
    "sched_process_exit":
    unix_ends_exit, unix_ends_exit_body, unix_ends_exit_1, unix_ends_exit_2, unix_ends_exit_3;
    |ctx| (ctx.arg::<u64>(0), UNIX_ENDS) => unix_ends()
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, since 3.4; called by the task that runs
/// something new, once it has its new name.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(_ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    starts::begins();
    0
}

#[inline(always)]
fn exits(task: u64) {
    fallback::thread_ends();
    word::forget();
    connect::thread_ends();
    receives::forget();
    let pid_tgid = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    if tgid == tid {
        workers::ends(tgid, task);
        abandoned::holder_dies();
    }
}

#[inline(always)]
fn unix_ends() {
    let pid_tgid = bpf_get_current_pid_tgid();
    if (pid_tgid >> 32) as u32 == pid_tgid as u32 {
        unix::owner_dies();
    }
}
