//! The nginx and php-fpm that run on this host, and where they listen.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use procfs::process::{Process, Stat, all_processes};
use tracer_ebpf::{FAMILY_UNIX, HeldSocket, tcp_state};

use crate::{ledger::address, load::held_sockets};

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
    let processes = match all_processes() {
        Ok(processes) => processes,
        Err(error) => {
            crate::notice!("nginx and php-fpm are not looked for: /proc cannot be read ({error})");
            return Vec::new();
        }
    };
    let ours: Vec<(Process, Stat)> = processes
        .flatten()
        .filter_map(|process| process.stat().ok().map(|stat| (process, stat)))
        // Whoever has ended and waits to be reaped serves nobody.
        .filter(|(_, stat)| stat.state != 'Z' && (stat.comm == "nginx" || stat.comm.starts_with("php-fpm")))
        .collect();
    let is_ours = |pid: i32, comm: &str| ours.iter().any(|(_, stat)| stat.pid == pid && stat.comm == comm);
    let here = Process::myself().ok().and_then(|me| network(&me));
    let masters: Vec<&(Process, Stat)> =
        ours.iter().filter(|(_, stat)| !is_ours(stat.ppid, &stat.comm)).collect();
    if masters.is_empty() {
        return Vec::new();
    }
    let listeners = listeners(masters.iter().map(|(_, stat)| stat.pid));
    let of = |pid: i32| listeners.as_ref().map(|all| all.get(&pid).into_iter().flatten().cloned().collect());
    masters
        .into_iter()
        .map(|(process, stat)| Master {
            pid: stat.pid,
            comm: stat.comm.clone(),
            workers: ours.iter().filter(|(child, of)| of.ppid == stat.pid && is_worker(child)).count(),
            listeners: of(stat.pid),
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

/// Where these processes listen; none where this process may not ask.
fn listeners<'a>(pids: impl Iterator<Item = i32> + 'a) -> Option<HashMap<i32, BTreeSet<String>>> {
    let held = held_sockets(pids.map(i32::cast_unsigned)).ok()?;
    let mut listeners: HashMap<i32, BTreeSet<String>> = HashMap::new();
    for (pid, name) in held.iter().filter_map(|socket| Some((socket.tgid.cast_signed(), name(socket)?))) {
        listeners.entry(pid).or_default().insert(name);
    }
    Some(listeners)
}

/// Where a socket listens, if it does. A unix socket in the abstract namespace is nobody's upstream.
fn name(socket: &HeldSocket) -> Option<String> {
    if socket.state != tcp_state::LISTEN || i32::from(socket.kind) != libc::SOCK_STREAM {
        return None;
    }
    if socket.local.family != FAMILY_UNIX {
        return Some(address(&socket.local).to_string());
    }
    let name = socket.name()?;
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    (end > 0).then(|| Path::new(OsStr::from_bytes(&name[..end])).display().to_string())
}
