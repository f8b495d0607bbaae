//! Filters of system calls: those in use are allowed, whatever else is tried fails with EPERM. A tracer must not die in the middle of an
//! incident of a call that a library makes now and then.

use std::{collections::BTreeMap, env::consts};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Memory, time, threads, signals of one's own, what is open, and reading files. What musl uses where glibc uses another call is here
/// as well.
const BASE: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getpgid,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_umask,
    libc::SYS_getcwd,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    // By which a signal wakes an event loop.
    libc::SYS_socketpair,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
];

/// The older names of these, where there are any.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_arch_prctl,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Making and removing files.
const FILES: &[libc::c_long] = &[
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fchmod,
    libc::SYS_flock,
];

#[cfg(target_arch = "x86_64")]
const OLDER_FILES: &[libc::c_long] =
    &[libc::SYS_unlink, libc::SYS_rename, libc::SYS_link, libc::SYS_mkdir, libc::SYS_creat];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_FILES: &[libc::c_long] = &[];

/// A socket that is there already, and connections to it.
const SERVED: &[libc::c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
];

/// What tracing is made of: programs, hooks, what a worker that waits in poll waits for; netlink's sockets, metrics that move to another
/// address; and to start a thread that keeps less.
const TRACED: &[libc::c_long] = &[
    libc::SYS_bpf,
    libc::SYS_process_vm_readv,
    // What is too long for a datagram to the journal goes by a file in memory.
    libc::SYS_memfd_create,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

/// Hooks that are perf events, and being another user for a moment, in a thread of one's own.
const APART: &[libc::c_long] = &[
    libc::SYS_perf_event_open,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_fchown,
];

/// Giving up capabilities.
const GIVING_UP: &[libc::c_long] = &[libc::SYS_capget, libc::SYS_capset];

/// Requests of `ioctl`: of descriptors, of terminals (their size and mode, never what is typed), of hooks (include/uapi).
const REQUESTS: [u64; 17] = [
    0x5421,      // FIONBIO
    0x5450,      // FIONCLEX
    0x5451,      // FIOCLEX
    0x541b,      // FIONREAD
    0x5401,      // TCGETS
    0x5402,      // TCSETS
    0x5403,      // TCSETSW
    0x5404,      // TCSETSF
    0x802c_542a, // TCGETS2
    0x402c_542b, // TCSETS2
    0x402c_542c, // TCSETSW2
    0x402c_542d, // TCSETSF2
    0x5413,      // TIOCGWINSZ
    0x540f,      // TIOCGPGRP
    0x2400,      // PERF_EVENT_IOC_ENABLE
    0x2401,      // PERF_EVENT_IOC_DISABLE
    0x4004_2408, // PERF_EVENT_IOC_SET_BPF
];

/// Requests of `prctl`: a thread's name, what may not be gained, capabilities, names of memory.
const CONTROLS: [i32; 7] = [
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_NO_NEW_PRIVS,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_CAP_AMBIENT,
    libc::PR_CAPBSET_READ,
    libc::PR_SET_VMA,
];

/// Domains of sockets that are made. There are none of raw packets, of virtual machines or of the kernel's cryptography.
const DOMAINS: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// An argument's number, how it is compared, and with what.
type Condition = (u8, SeccompCmpOp, u64);

/// A filter.
pub(super) struct Filter {
    /// By call: any of these lets it through, or it always goes through.
    rules: BTreeMap<i64, Vec<Condition>>,
}

/// Whether the running kernel has filters.
pub(super) fn is_here() -> bool {
    const ASKS: libc::c_long = libc::SECCOMP_GET_ACTION_AVAIL as libc::c_long;
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads the action, and nothing else (since 4.14, seccomp(2)).
    unsafe { libc::syscall(libc::SYS_seccomp, ASKS, 0, &raw const action) == 0 }
}

impl Filter {
    /// Of tracing.
    pub(super) fn tracing() -> Self {
        let mut filter = Self::of(&[BASE, OLDER, FILES, OLDER_FILES, SERVED, TRACED, GIVING_UP]);
        filter.allow(libc::SYS_socket, DOMAINS.map(|domain| is(0, domain.cast_unsigned().into())));
        filter
    }

    /// Of what is done in threads apart: to enter a network namespace, and to be another user. `mounts` if tracefs is to be mounted.
    pub(super) fn apart(mounts: bool) -> Self {
        let mut filter = Self::tracing();
        filter.allow_all(APART);
        filter.allow(libc::SYS_setns, [is(1, libc::CLONE_NEWNET.cast_unsigned().into())]);
        if mounts {
            filter.allow(libc::SYS_unshare, [is(0, libc::CLONE_NEWNS.cast_unsigned().into())]);
            filter.allow_all(&[libc::SYS_mount]);
        }
        filter
    }

    /// Of the server of metrics.
    pub(super) fn serving() -> Self {
        Self::of(&[BASE, OLDER, SERVED])
    }

    /// Of what reads files of others.
    pub(super) fn reading() -> Self {
        Self::of(&[BASE, OLDER, FILES, OLDER_FILES, GIVING_UP])
    }

    fn of(lists: &[&[libc::c_long]]) -> Self {
        let mut filter = Self { rules: BTreeMap::new() };
        for list in lists {
            filter.allow_all(list);
        }
        filter.allow(libc::SYS_ioctl, REQUESTS.map(|request| is(1, request)));
        filter.allow(libc::SYS_prctl, CONTROLS.map(|control| is(0, control.cast_unsigned().into())));
        // Signals go to this process only: `abort` sends one.
        let own = u64::from(std::process::id());
        filter.allow(libc::SYS_tgkill, [is(0, own)]);
        // Its own limits, and only to read them.
        filter.allow(libc::SYS_prlimit64, [is(0, 0)]);
        // Nothing becomes executable, and no process begins.
        let never_executable = (2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC.cast_unsigned().into()), 0);
        filter.allow(libc::SYS_mmap, [never_executable.clone()]);
        filter.allow(libc::SYS_mprotect, [never_executable]);
        let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
        filter.allow(libc::SYS_clone, [(0, SeccompCmpOp::MaskedEq(thread), thread)]);
        // Its flags lie in memory, where no filter sees them: see `without_clone3`.
        filter.allow_all(&[libc::SYS_clone3]);
        filter
    }

    fn allow_all(&mut self, calls: &[libc::c_long]) {
        self.rules.extend(calls.iter().map(|call| (*call, Vec::new())));
    }

    fn allow<const N: usize>(&mut self, call: libc::c_long, any_of: [Condition; N]) {
        self.rules.insert(call, any_of.into());
    }

    /// Puts it on the calling thread, for good.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn put_on(&self) -> Result<(), String> {
        let put_on = || -> Result<(), Box<dyn std::error::Error>> {
            let arch = TargetArch::try_from(consts::ARCH)?;
            seccompiler::apply_filter(&without_clone3(arch)?)?;
            let mut rules = BTreeMap::new();
            for (call, any_of) in &self.rules {
                let any_of = any_of.iter().map(|(argument, operator, value)| {
                    let condition = SeccompCondition::new(*argument, Dword, operator.clone(), *value)?;
                    SeccompRule::new(vec![condition])
                });
                rules.insert(*call, any_of.collect::<Result<Vec<_>, _>>()?);
            }
            let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
            let program: BpfProgram =
                SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?;
            Ok(seccompiler::apply_filter(&program)?)
        };
        put_on().map_err(|error| format!("system calls are not filtered: {error}"))
    }
}

/// There is no `clone3`, for whoever would start a thread by it: then libraries use `clone`, whose flags a filter sees.
fn without_clone3(arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, missing, arch)?.try_into()
}

/// This argument has this value.
fn is(argument: u8, value: u64) -> Condition {
    (argument, SeccompCmpOp::Eq, value)
}
