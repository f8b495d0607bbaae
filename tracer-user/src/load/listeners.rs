//! Listeners that are older than the tracer.
//!
//! No tracepoint tells where their `struct sock` is. So the program duplicates each listening descriptor
//! (`pidfd_getfd`, since 5.6) and calls receive on it: a listener refuses that with ENOTCONN (a unix one with
//! EINVAL), and the hook on
//! receive, which runs in this process then, is handed the socket. The listener itself does not notice.

use std::{collections::HashSet, fs, os::fd::AsRawFd};

use procfs::{
    net::{TcpState, UnixState},
    process::{FDTarget, Process, all_processes},
};

use crate::duplicate::duplicate;

/// A listener that was shown to the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The first process that holds it.
    pub pid: i32,
    /// The number of its inode.
    pub inode: u64,
}

/// Shows every listener of this host to the kernel side.
///
/// Processes that end meanwhile, or that may not be looked at, are passed over: their listeners stay unknown, and
/// verdicts that would need them are less sure.
pub(super) fn show() -> Vec<Shown> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let processes: Vec<Process> = processes.flatten().collect();
    // First all of them: a process may hold a listener of a namespace that only later ones are in.
    let mut namespaces = HashSet::new();
    let mut listening = HashSet::new();
    for process in &processes {
        if let Ok(namespace) = fs::read_link(format!("/proc/{}/ns/net", process.pid))
            && namespaces.insert(namespace)
        {
            listening.extend(listening_inodes(process));
        }
    }
    let mut result = Vec::new();
    let mut shown = HashSet::new();
    for process in &processes {
        let Ok(descriptors) = process.fd() else { continue };
        for descriptor in descriptors.flatten() {
            if let FDTarget::Socket(inode) = descriptor.target
                && listening.contains(&inode)
                && !shown.contains(&inode)
                && show_one(process.pid, descriptor.fd).is_some()
            {
                shown.insert(inode);
                result.push(Shown { pid: process.pid, inode });
            }
        }
    }
    result
}

fn listening_inodes(process: &Process) -> Vec<u64> {
    // Bound and unconnected: it may listen, and the kernel side looks whether it does.
    let unix = process.unix().unwrap_or_default().into_iter().filter(|entry| {
        i32::from(entry.socket_type) == libc::SOCK_STREAM
            && matches!(entry.state, UnixState::UNCONNECTED)
            && entry.path.is_some()
    });
    let entries = process.tcp().unwrap_or_default().into_iter().chain(process.tcp6().unwrap_or_default());
    entries
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| entry.inode)
        .chain(unix.map(|entry| entry.inode))
        .collect()
}

fn show_one(pid: i32, fd: i32) -> Option<()> {
    let listener = duplicate(pid, fd)?;
    let mut byte = 0_u8;
    // SAFETY: the buffer is one byte long, and the descriptor is open.
    unsafe { libc::recv(listener.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) };
    Some(())
}
