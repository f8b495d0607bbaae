//! Who sent the signal that a process dies of.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::Signal;

use crate::{
    kernel::{self, layout, read},
    maps::SIGNALS,
};

/// Signals that end a process by default, the profiling timers' and real-time ones left out:
/// HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT XCPU XFSZ SYS.
const FATAL: u32 = 1 << 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 9
    | 1 << 10
    | 1 << 11
    | 1 << 12
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 16
    | 1 << 24
    | 1 << 25
    | 1 << 31;

/// `TRACE_SIGNAL_DELIVERED`: the signal was queued. Others were ignored, or pending already.
const DELIVERED: u32 = 0;
/// `SI_USER` and `SI_KERNEL`, include/uapi/asm-generic/siginfo.h.
const SI_USER: i32 = 0;
const SI_KERNEL: i32 = 0x80;

#[inline(always)]
fn key(tgid: u32, number: u32) -> u64 {
    u64::from(tgid) << 32 | u64::from(number)
}

/// A signal was sent. A process that sends itself the signal it was sent (php-fpm's worker does, from its
/// handler for SIGTERM) does not become its own killer.
#[inline(always)]
pub fn sent(number: u32, info: u64, task: u64, result: u32) {
    if number > 31 || FATAL & (1 << number) == 0 || result != DELIVERED {
        return;
    }
    let victim: u32 = read(task, layout!(task_tgid));
    let sender = kernel::current();
    let key = key(victim, number);
    // SAFETY: copied out at once.
    let before = unsafe { SIGNALS.get(key) }.map(|signal| signal.ns);
    // An older one was for another process, which had this pid before.
    if sender.tgid == victim && before.is_some_and(|ns| ns >= began(task)) {
        return;
    }
    // SEND_SIG_NOINFO and SEND_SIG_PRIV are the pointers 0 and 1.
    let code = match info {
        0 => SI_USER,
        1 => SI_KERNEL,
        _ => read::<i32>(info, layout!(si_code)),
    };
    let parent: u32 = read(read(task, layout!(task_parent)), layout!(task_tgid));
    let signal = Signal {
        // SAFETY: the helper takes nothing.
        ns: unsafe { bpf_ktime_get_ns() },
        number,
        code,
        sender,
        from_parent: u32::from(parent == sender.tgid),
        out_of_memory: 0,
    };
    let _evicts = SIGNALS.insert(key, &signal, 0);
}

/// When the process that `task` is a thread of began.
#[inline(always)]
fn began(task: u64) -> u64 {
    read(read(task, layout!(task_leader)), layout!(task_start_time))
}

/// The kernel chose a victim because memory ran out: `victim` is its task, or on older kernels its pid, which no address is as small
/// as.
#[inline(always)]
pub fn out_of_memory(victim: u64) {
    const SIGKILL: u32 = 9;
    let tgid = u32::try_from(victim).unwrap_or_else(|_| read(victim, layout!(task_tgid)));
    if let Some(signal) = SIGNALS.get_ptr_mut(key(tgid, SIGKILL)) {
        // SAFETY: preallocated map memory.
        unsafe { (*signal).out_of_memory = 1 };
    }
}

/// Writes down the signal that process `tgid`, exiting with `exit_code`, dies of, if it was seen.
#[inline(always)]
pub fn of_death(tgid: u32, exit_code: u32, signal: &mut Signal) {
    // SAFETY: the entry is copied out at once, over a value of the type.
    unsafe {
        if let Some(seen) = SIGNALS.get(key(tgid, exit_code & 0x7f)) {
            kernel::fill(signal, seen);
        }
    }
}
