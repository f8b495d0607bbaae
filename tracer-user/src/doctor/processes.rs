//! The nginx and php-fpm that run on this host, and where they listen.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
};

use procfs::{
    net::{TcpState, UnixState},
    process::{FDTarget, Process, Stat, all_processes},
};

/// A master process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// Its pid.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// How many workers it has.
    pub workers: usize,
    /// Where it listens; none where this process may not look.
    pub listeners: Option<Vec<String>>,
    /// Whether it lives in another network namespace than this process, with settings of its own.
    pub is_elsewhere: bool,
}

/// Every master of this host.
pub fn masters() -> Vec<Master> {
    let Ok(processes) = all_processes() else { return Vec::new() };
    let ours: Vec<(Process, Stat)> = processes
        .flatten()
        .filter_map(|process| process.stat().ok().map(|stat| (process, stat)))
        // Whoever has ended and waits to be reaped serves nobody.
        .filter(|(_, stat)| stat.state != 'Z' && (stat.comm == "nginx" || stat.comm.starts_with("php-fpm")))
        .collect();
    let is_ours = |pid: i32, comm: &str| ours.iter().any(|(_, stat)| stat.pid == pid && stat.comm == comm);
    let here = Process::myself().ok().and_then(|me| network(&me));
    ours.iter()
        .filter(|(_, stat)| !is_ours(stat.ppid, &stat.comm))
        .map(|(process, stat)| Master {
            pid: stat.pid,
            comm: stat.comm.clone(),
            workers: ours.iter().filter(|(child, of)| of.ppid == stat.pid && is_worker(child)).count(),
            listeners: listeners(process),
            is_elsewhere: here.is_some() && network(process).is_some_and(|there| Some(there) != here),
        })
        .collect()
}

/// nginx's cache manager and loader serve nobody.
fn is_worker(process: &Process) -> bool {
    let title = process.cmdline().unwrap_or_default().join(" ");
    !title.contains("cache manager process") && !title.contains("cache loader process")
}

fn network(process: &Process) -> Option<u64> {
    Some(process.namespaces().ok()?.0.get(&OsString::from("net"))?.identifier)
}

fn listeners(process: &Process) -> Option<Vec<String>> {
    let listening = listening(process);
    let descriptors = process.fd().ok()?.flatten();
    let names: BTreeSet<String> = descriptors
        .filter_map(|descriptor| match descriptor.target {
            FDTarget::Socket(inode) => listening.get(&inode).cloned(),
            _ => None,
        })
        .collect();
    Some(names.into_iter().collect())
}

/// The listening sockets of a process's network, by inode.
fn listening(process: &Process) -> HashMap<u64, String> {
    let tcp = process.tcp().unwrap_or_default().into_iter().chain(process.tcp6().unwrap_or_default());
    let inet = tcp
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| (entry.inode, entry.local_address.to_string()));
    // Bound and unconnected, as in the list of listeners that the tracer makes.
    let unix = process.unix().unwrap_or_default().into_iter().filter_map(|entry| {
        let listens =
            i32::from(entry.socket_type) == libc::SOCK_STREAM && entry.state == UnixState::UNCONNECTED;
        Some((entry.inode, entry.path.filter(|_| listens)?.display().to_string()))
    });
    inet.chain(unix).collect()
}
