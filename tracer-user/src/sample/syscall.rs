//! What a system call waits for, by its number and arguments as `/proc/PID/syscall` shows them.

/// A system call in which a thread waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Reads from this descriptor.
    Read { fd: i32 },
    /// Writes to this descriptor, or waits until what was written is safe.
    Write { fd: i32 },
    /// Connects this socket.
    Connect { fd: i32 },
    /// Accepts from this listener.
    Accept,
    /// `count` entries of `struct pollfd` in the caller's memory.
    Poll { name: &'static str, address: u64, count: u64 },
    /// Sets of descriptors below `count` in the caller's memory: to read, to write; zero for none.
    Select { name: &'static str, count: u64, read: u64, write: u64 },
    /// What an epoll descriptor watches.
    Epoll { name: &'static str, fd: i32 },
    /// Lets time pass.
    Sleep { name: &'static str },
    /// Waits for another thread, or another process that shares memory.
    Futex,
    /// Locks the file of this descriptor.
    FileLock { fd: i32 },
    /// Waits for a child process to end, or to begin.
    Child,
    /// Waits for a signal.
    Signal,
    /// Another, whose name is known.
    Named(&'static str),
    /// Another.
    Number(i64),
}

/// What `number` is on this architecture, called with `arguments`.
pub(super) fn call(number: i64, arguments: &[u64; 6]) -> Call {
    let [first, second, third, ..] = *arguments;
    // A descriptor is an int, the upper half of whose register means nothing.
    let fd = first as u32 as i32;
    #[expect(clippy::useless_conversion, reason = "c_long is narrower on some architectures")]
    let is = |numbers: &[libc::c_long]| numbers.iter().any(|&known| i64::from(known) == number);
    if is(&[
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_preadv,
        libc::SYS_preadv2,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_recvmmsg,
        libc::SYS_getdents64,
    ]) {
        return Call::Read { fd };
    }
    if is(&[
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_pwritev,
        libc::SYS_pwritev2,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
        libc::SYS_sendfile,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
    ]) {
        return Call::Write { fd };
    }
    // fcntl(2): only these two commands wait.
    let waits_for_lock = [libc::F_SETLKW, libc::F_OFD_SETLKW].contains(&(second as u32 as i32));
    if is(&[libc::SYS_flock]) || is(&[libc::SYS_fcntl]) && waits_for_lock {
        return Call::FileLock { fd };
    }
    let Some((_, name)) = NAMES.iter().find(|(known, _)| is(&[*known])) else { return Call::Number(number) };
    match *name {
        "connect" => Call::Connect { fd },
        "accept" | "accept4" => Call::Accept,
        "poll" | "ppoll" => Call::Poll { name, address: first, count: second },
        "select" | "pselect6" => Call::Select { name, count: first, read: second, write: third },
        "epoll_wait" | "epoll_pwait" | "epoll_pwait2" => Call::Epoll { name, fd },
        "nanosleep" | "clock_nanosleep" => Call::Sleep { name },
        "futex" => Call::Futex,
        // vfork, also as a kind of clone, waits until the child runs a program of its own or ends.
        "wait4" | "waitid" | "vfork" | "clone" | "clone3" => Call::Child,
        "pause" | "rt_sigsuspend" | "rt_sigtimedwait" => Call::Signal,
        _ => Call::Named(name),
    }
}

/// The names of those that workers are found in. Where an architecture lacks one, glibc uses another.
const NAMES: &[(libc::c_long, &str)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "pause"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "vfork"),
    (libc::SYS_accept, "accept"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_close, "close"),
    (libc::SYS_connect, "connect"),
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_epoll_pwait2, "epoll_pwait2"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_io_getevents, "io_getevents"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_msgrcv, "msgrcv"),
    (libc::SYS_msgsnd, "msgsnd"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_pselect6, "pselect6"),
    (libc::SYS_rt_sigsuspend, "rt_sigsuspend"),
    (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
    (libc::SYS_semop, "semop"),
    (libc::SYS_semtimedop, "semtimedop"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: libc::c_long, arguments: [u64; 6]) -> Call {
        call(number, &arguments)
    }

    #[test]
    fn calls_are_known_by_their_number() {
        assert_eq!(of(libc::SYS_recvfrom, [7, 0, 0, 0, 0, 0]), Call::Read { fd: 7 });
        assert_eq!(of(libc::SYS_fdatasync, [3, 0, 0, 0, 0, 0]), Call::Write { fd: 3 });
        assert_eq!(of(libc::SYS_connect, [4, 0, 0, 0, 0, 0]), Call::Connect { fd: 4 });
        assert_eq!(of(libc::SYS_clock_nanosleep, [0; 6]), Call::Sleep { name: "clock_nanosleep" });
        assert_eq!(of(libc::SYS_semop, [0; 6]), Call::Named("semop"));
        assert_eq!(
            of(libc::SYS_ppoll, [0x7ff0, 2, 0, 0, 0, 0]),
            Call::Poll { name: "ppoll", address: 0x7ff0, count: 2 }
        );
        assert_eq!(of(99_999, [0; 6]), Call::Number(99_999));
    }

    #[test]
    fn only_waiting_for_a_lock_is_a_file_lock() {
        let fcntl = |command: i32| of(libc::SYS_fcntl, [5, command as u64, 0, 0, 0, 0]);
        assert_eq!(fcntl(libc::F_SETLKW), Call::FileLock { fd: 5 });
        assert_eq!(fcntl(libc::F_OFD_SETLKW), Call::FileLock { fd: 5 });
        assert!(matches!(fcntl(libc::F_GETFL), Call::Number(_)));
        assert_eq!(of(libc::SYS_flock, [6, 2, 0, 0, 0, 0]), Call::FileLock { fd: 6 });
    }

    #[test]
    fn the_upper_half_of_a_descriptors_register_means_nothing() {
        assert_eq!(of(libc::SYS_read, [0xdead_beef_0000_0009, 0, 0, 0, 0, 0]), Call::Read { fd: 9 });
    }
}
