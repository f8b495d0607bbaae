//! Duplicates of other processes' descriptors.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// A duplicate of descriptor `fd` of process `pid`, which does not notice (`pidfd_getfd`, since 5.6). While it is open,
/// so is what it stands for.
pub(crate) fn duplicate(pid: i32, fd: i32) -> Option<OwnedFd> {
    let process = descriptor(
        // SAFETY: takes two integers; the result is checked below.
        unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) },
    )?;
    descriptor(
        // SAFETY: takes three integers; the result is checked below.
        unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) },
    )
}

fn descriptor(result: libc::c_long) -> Option<OwnedFd> {
    let fd = i32::try_from(result).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the kernel made this descriptor just now, for us alone.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
