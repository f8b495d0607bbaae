//! Who sent the signal that a process dies of, or that told it to stop.
//!
//! A signal's tracepoint is called in the context of whoever runs, which need not be who sent it: a timer comes in an interrupt, a
//! terminal's hangup in the kernel's own thread. All system calls that send one (kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo,
//! pidfd_send_signal: kernel/signal.c, 5.10 to 7.2) have its `struct kernel_siginfo` on the stack of the task that calls. A POSIX timer
//! has it in its own memory (`send_sigqueue`, kernel/signal.c), and the kernel mostly has none (`SEND_SIG_PRIV`, `SEND_SIG_NOINFO`). So
//! it is where it lies that names the sender; its `si_code` can be forged.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap},
};
use wire::{Origin, Signal, Task};

use crate::{
    kernel::{
        memory,
        put::put,
        read::{layout, read},
        recent::{self, Found, Row},
        task,
    },
    live::explain::{
        members,
        process::{self, Process},
    },
};

/// The last signals that workers and their parents were sent, of each number, by `tgid << 32 | number`.
#[map]
pub static SIGNALS: HashMap<u64, Signal> = HashMap::with_max_entries(2_048, 0);

/// The last signals to whoever is no worker, or none yet, by process.
#[map]
static BESIDE: Array<Row<Beside>> = Array::with_max_entries(BESIDE_ROWS, 0);
const BESIDE_ROWS: u32 = 256;
const BESIDE_MASK: u64 = BESIDE_ROWS as u64 - 1;

/// A signal to a process that is no worker.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Beside {
    pub signal: Signal,
    /// When an earlier one was lost, as [`Process::lost_ns`].
    pub lost_ns: u64,
}

/// A process that has not ended of a signal by then, nor sent it to itself again, does not end of it (ns).
const LATELY_NS: u64 = 60_000_000_000;

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
const SIGKILL: u32 = 9;
/// `si_code`s, include/uapi/asm-generic/siginfo.h.
const SI_KERNEL: i32 = 0x80;
const SI_USER: i32 = 0;
const SI_TIMER: i32 = -2;
const SI_MESGQ: i32 = -3;
const SI_ASYNCIO: i32 = -4;
const SI_SIGIO: i32 = -5;
/// The pointers that stand for no `struct kernel_siginfo` (include/linux/sched/signal.h).
const SEND_SIG_NOINFO: u64 = 0;
const SEND_SIG_PRIV: u64 = 1;

#[inline(always)]
pub fn key(tgid: u32, number: u32) -> u64 {
    u64::from(tgid) << 32 | u64::from(number)
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Where a signal comes from, and its `si_code`. `is_own`: the running process is the one that it goes to.
#[inline(always)]
fn origin(number: u32, info: u64, is_own: bool) -> (Origin, i32) {
    match info {
        // cgroup.kill (`__cgroup_kill`) has no more than this, and no other signal of that kind is SIGKILL but a parent's death.
        SEND_SIG_NOINFO if is_own => (Origin::Kernel, SI_KERNEL),
        SEND_SIG_NOINFO if task::current_exit().is_some() => (Origin::ParentDeath, SI_KERNEL),
        SEND_SIG_NOINFO if number == SIGKILL => (Origin::Process, SI_USER),
        SEND_SIG_NOINFO | SEND_SIG_PRIV => (Origin::Kernel, SI_KERNEL),
        _ => {
            let code: i32 = read(info, layout!(si_code));
            let origin = match (task::is_on_stack(info), code) {
                // `force_sig_fault` and its kind: only the kernel may use these towards others, and a fault is always the victim's own.
                (true, 1..) if is_own => Origin::Fault,
                (_, 1..) => Origin::Kernel,
                // `send_sigio_to_task`, `__do_notify`, `kill_pid_usb_asyncio`: on the stack of whoever runs, and a sender may forge them.
                (true, SI_SIGIO | SI_MESGQ | SI_ASYNCIO) => Origin::Event,
                (true, _) => Origin::Process,
                (false, SI_TIMER) => Origin::Timer,
                (false, _) => Origin::Kernel,
            };
            (origin, code)
        }
    }
}

/// A signal was sent. A process that sends itself the signal it was sent (php-fpm's worker does, from its handler for SIGTERM) does not
/// become its own killer; where it is not known who sent it first, nobody does.
#[inline(always)]
pub fn sent(number: u32, info: u64, task: u64, result: u32) {
    if number > 31 || FATAL & (1 << number) == 0 || result != DELIVERED {
        return;
    }
    let victim: u32 = read(task, layout!(task_tgid));
    let sender = task::current();
    let is_own = sender.tgid == victim;
    let (origin, code) = origin(number, info, is_own);
    let parent: u32 = read(read(task, layout!(task_parent)), layout!(task_tgid));
    let mut signal = Signal {
        ns: now(),
        number,
        code,
        sender,
        from_parent: u16::from(parent == sender.tgid),
        origin: origin as u16,
        out_of_memory: 0,
    };
    if !matches!(origin, Origin::Process | Origin::ParentDeath) {
        // Who ran has no part in it.
        name_nobody(&mut signal);
    }
    let began_ns = task::began(task);
    let is_again = is_own && matches!(origin, Origin::Process);
    match process::of(victim, began_ns) {
        Some(process) => {
            keep(process, victim, &mut signal, is_again);
            if !is_own && matches!(origin, Origin::Process) {
                members::keep_current(sender.tgid);
            }
        }
        None => note(victim, began_ns, &mut signal, is_again),
    }
}

#[inline(always)]
fn name_nobody(signal: &mut Signal) {
    signal.from_parent = 0;
    // SAFETY: all zeroes are a task.
    unsafe { memory::clear::<Task>(&raw mut signal.sender) };
}

/// Who sent it is not known any more.
#[inline(always)]
pub fn lose(signal: &mut Signal) {
    signal.origin = Origin::Lost as u16;
    name_nobody(signal);
}

#[inline(always)]
pub fn is_lately(ns: u64, now: u64) -> bool {
    ns != 0 && ns.saturating_add(LATELY_NS) >= now
}

/// Keeps a signal to a worker; `is_again`: the worker sent it to itself.
#[inline(always)]
fn keep(process: &mut Process, victim: u32, signal: &mut Signal, is_again: bool) {
    let key = key(victim, signal.number);
    if is_again {
        // SAFETY: only looked at. An older one was for another process, which had this pid before.
        if unsafe { SIGNALS.get(key) }.is_some_and(|before| before.ns >= process.began_ns) {
            return;
        }
        if is_lately(process.lost_ns, signal.ns) {
            lose(signal);
        }
    }
    if put!(SIGNALS, key, &*signal, signals_unkept) {
        process.signals |= 1 << (signal.number & 31);
    } else {
        process.lost_ns = signal.ns;
    }
}

/// Notes a signal to a process that is no worker, and may become one.
#[inline(always)]
fn note(victim: u32, began_ns: u64, signal: &mut Signal, is_again: bool) {
    let mut lost_ns = 0;
    match before(victim, began_ns, signal.ns) {
        Found::It(before) if before.signal.number == signal.number => {
            if is_again {
                return;
            }
            lost_ns = before.lost_ns;
        }
        Found::It(before) => {
            if is_again && is_lately(before.lost_ns, signal.ns) {
                lose(signal);
            }
            // There is room for one.
            lost_ns = before.signal.ns;
        }
        Found::MaybePushedOut => {
            if is_again {
                lose(signal);
            }
            lost_ns = signal.ns;
        }
        Found::Nothing => {}
    }
    let beside = Beside { signal: *signal, lost_ns };
    recent::note::<_, BESIDE_MASK>(&BESIDE, u64::from(victim), signal.ns, &beside);
}

/// What a process was sent before it became a worker.
#[inline(always)]
pub fn before(tgid: u32, began_ns: u64, now: u64) -> Found<Beside> {
    let lately_ns = began_ns.max(now.saturating_sub(LATELY_NS));
    recent::find::<_, BESIDE_MASK>(&BESIDE, u64::from(tgid), began_ns, lately_ns)
}

/// A process becomes a worker: takes over what it was sent before.
#[inline(always)]
pub fn sent_before(tgid: u32, process: &mut Process) {
    let now = now();
    match before(tgid, process.began_ns, now) {
        Found::It(Beside { signal, lost_ns }) => {
            process.lost_ns = lost_ns;
            if put!(SIGNALS, key(tgid, signal.number), &signal, signals_unkept) {
                process.signals |= 1 << (signal.number & 31);
            } else {
                process.lost_ns = now;
            }
        }
        Found::MaybePushedOut => process.lost_ns = now,
        Found::Nothing => {}
    }
}

/// The kernel chose a victim because memory ran out: `victim` is its task, or on older kernels its pid, which no address is as small
/// as.
#[inline(always)]
pub fn out_of_memory(victim: u64) {
    let tgid = u32::try_from(victim).unwrap_or_else(|_| read(victim, layout!(task_tgid)));
    if let Some(signal) = SIGNALS.get_ptr_mut(key(tgid, SIGKILL)) {
        // SAFETY: preallocated map memory.
        unsafe { (*signal).out_of_memory = 1 };
    }
    recent::change::<_, BESIDE_MASK>(&BESIDE, u64::from(tgid), |beside: *mut Beside| {
        // SAFETY: map memory.
        unsafe { (*beside).signal.out_of_memory = u32::from((*beside).signal.number == SIGKILL) };
    });
}

/// Makes room: the process ended long ago.
#[inline(always)]
pub fn forget(tgid: u32, number: u32) {
    let _gone = SIGNALS.remove(key(tgid, number));
}
