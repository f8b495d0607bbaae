//! One look at one thread, by what /proc shows. Nothing of it stops the thread.

use std::fs;

use procfs::process::{Process, Schedstat, Stat, Syscall, Task};

use super::{
    Doing, Served, Target, frozen,
    sockets::Sockets,
    syscall::{Call, call},
    wait::Waiter,
};

/// How often a thread may move on to another call while it is looked at.
const ATTEMPTS: usize = 3;

/// Time that a thread has used so far, in ns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// When this was read (monotonic).
    pub(super) at_ns: u64,
    /// When the thread began, in clock ticks since boot: a thread id is given again.
    born: u64,
    /// On a CPU.
    cpu_ns: u64,
    /// Ready to run, with no CPU free; zero for ever where the kernel does not count it.
    delay_ns: u64,
}

impl Used {
    fn of(stat: &Stat, schedstat: Option<&Schedstat>, at_ns: u64) -> Self {
        let tick_ns = 1_000_000_000 / procfs::ticks_per_second().max(1);
        Self {
            at_ns,
            born: stat.starttime,
            cpu_ns: (stat.utime + stat.stime) * tick_ns,
            delay_ns: schedstat.map_or(0, |schedstat| schedstat.run_delay),
        }
    }

    /// What most of the time since `before` went into, if it was not waiting.
    fn mostly(&self, before: &Self) -> Option<Doing> {
        let half = self.at_ns.saturating_sub(before.at_ns) / 2;
        if self.born != before.born || half == 0 {
            None
        } else if self.cpu_ns.saturating_sub(before.cpu_ns) >= half {
            Some(Doing::Running)
        } else if self.delay_ns.saturating_sub(before.delay_ns) >= half {
            Some(Doing::Waiting(Target::Cpu))
        } else {
            None
        }
    }
}

/// What one look found.
#[derive(Clone, Debug)]
pub(super) struct Glimpse {
    pub(super) doing: Doing,
    pub(super) used: Used,
    pub(super) has_other_threads: bool,
}

/// Looks at the thread that serves `served`, at `now` (ns, monotonic). None if it has gone, or may not be looked at.
pub(super) fn look(
    served: &Served,
    before: Option<&Used>,
    sockets: &mut Sockets,
    now: u64,
) -> Option<Glimpse> {
    let process = Process::new(served.pid).ok()?;
    let task = process.task_from_tid(served.tid).ok()?;
    let stat = task.stat().ok()?;
    let used = Used::of(&stat, task.schedstat().ok().as_ref(), now);
    let has_other_threads = stat.num_threads > 1;
    let found = |doing| Some(Glimpse { doing, used, has_other_threads });
    if let Some(doing) = before.and_then(|before| used.mostly(before)) {
        return found(doing);
    }
    let doing = match stat.state {
        'Z' | 'X' => return None,
        'R' => Doing::Running,
        'T' | 't' => Doing::Waiting(Target::Stopped),
        _ if frozen::is_frozen(served.pid) => Doing::Waiting(Target::Thaw),
        state => match waiting(
            &task,
            &mut Waiter {
                process: &process,
                task: &task,
                served,
                is_only_thread: !has_other_threads,
                sockets,
            },
        )? {
            Doing::Waiting(Target::Kernel(_)) if state == 'D' => {
                Doing::Waiting(Target::Disk(wait_channel(served)))
            }
            doing => doing,
        },
    };
    found(doing)
}

/// What a thread that does not run waits for. None if it is on the move, or if that cannot be found out now.
fn waiting(task: &Task, waiter: &mut Waiter<'_>) -> Option<Doing> {
    // An error also comes of a thread that waits outside of calls, in a page fault say: it has no arguments to be read.
    let mut syscall = task.syscall().ok();
    for _ in 0..ATTEMPTS {
        let doing = match called(syscall.as_ref()) {
            Called::Nothing => Doing::Running,
            Called::Call(call) => Doing::Waiting(waiter.target(call)?),
            Called::Unknown => Doing::Waiting(Target::Kernel(wait_channel(waiter.served))),
        };
        // What the descriptors stood for counts only if the thread was in the same call afterwards.
        let again = task.syscall().ok();
        if again == syscall {
            return Some(doing);
        }
        syscall = again;
    }
    None
}

/// What `/proc/PID/syscall` amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Called {
    /// The thread runs.
    Nothing,
    /// It waits in this call.
    Call(Call),
    /// It waits, but not in a call, or in one of another numbering.
    Unknown,
}

fn called(syscall: Option<&Syscall>) -> Called {
    match syscall.copied() {
        Some(Syscall::Blocked { syscall_number, argument_registers, stack_pointer, .. }) => {
            // A 32-bit process on a 64-bit kernel has numbers of its own, and a stack below 4 GiB.
            let is_compat = cfg!(target_pointer_width = "64") && u32::try_from(stack_pointer).is_ok();
            if syscall_number < 0 || is_compat {
                Called::Unknown
            } else {
                Called::Call(call(syscall_number, &argument_registers))
            }
        }
        Some(_) => Called::Nothing,
        None => Called::Unknown,
    }
}

/// The kernel's function in which it waits.
fn wait_channel(served: &Served) -> String {
    let path = format!("/proc/{}/task/{}/wchan", served.pid, served.tid);
    let name = fs::read_to_string(path).unwrap_or_default();
    if name.is_empty() || name == "0" { "unknown".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;

    use super::*;

    /// Of a php-fpm worker of Linux 6.18 that had used 37 + 5 ticks of 10 ms.
    const STAT: &str = "24940 (php-fpm8.2 w) S 24938 24938 24938 0 -1 4194368 1480 0 0 0 37 5 0 0 20 0 1 0 482113 \
        212635648 4217 18446744073709551615 94110117871616 94110121027109 140725640013584 0 0 0 0 4096 1536 1 0 0 17 1 \
        0 0 0 0 0 94110122141488 94110123048128 94110145093632 140725640019696 140725640019757 140725640019757 \
        140725640019930 0\n";

    fn used(at_ns: u64, schedstat: Option<&str>) -> Used {
        let stat = Stat::from_read(STAT.as_bytes()).unwrap();
        let schedstat = schedstat.map(|text| Schedstat::from_read(text.as_bytes()).unwrap());
        Used::of(&stat, schedstat.as_ref(), at_ns)
    }

    #[test]
    fn most_of_the_time_since_the_last_look_counts_whatever_this_moment_shows() {
        let before = Used { cpu_ns: 0, ..used(0, None) };
        // 420 ms on the CPU are half of 840 ms.
        assert_eq!(used(840_000_000, None).mostly(&before), Some(Doing::Running));
        assert_eq!(used(841_000_000, None).mostly(&before), None);
        let delayed = used(1_000_000_000, Some("420000000 600000000 12\n"));
        assert_eq!(delayed.mostly(&before), Some(Doing::Waiting(Target::Cpu)));
    }

    #[test]
    fn another_thread_with_the_same_number_says_nothing_of_this_one() {
        let other = Used { cpu_ns: 0, born: 7, ..used(0, None) };
        assert_eq!(used(100_000_000, None).mostly(&other), None);
    }

    #[test]
    fn a_call_is_read_as_the_kernel_writes_it() {
        let called = |text: &str| called(Syscall::from_read(text.as_bytes()).ok().as_ref());
        let text = format!("{} 0x4 0x0 0x0 0x0 0x0 0x0 0x7ffd7a3e8e18 0x7f64d81d1b15\n", libc::SYS_connect);
        assert_eq!(called(&text), Called::Call(Call::Connect { fd: 4 }));
        assert_eq!(called("running\n"), Called::Nothing);
        assert_eq!(called("-1 0x7ffd7a3e8e18 0x7f64d81d1b15\n"), Called::Unknown);
    }

    #[test]
    fn a_32_bit_process_has_another_numbering() {
        let text = "3 0x4 0x0 0x0 0x0 0x0 0x0 0xffe38e18 0xf7d1b15\n";
        assert_eq!(called(Syscall::from_read(text.as_bytes()).ok().as_ref()), Called::Unknown);
    }
}
