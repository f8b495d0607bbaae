//! The nginx and php-fpm that run on this host, and where they listen.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use procfs::{
    ProcError, ProcResult,
    process::{Process, Stat},
};
use wire::{FAMILY_UNIX, HeldSocket, tcp_state};

use crate::{
    load::held_sockets,
    model::{failure::Failure, from_wire::address, words::count},
    procfs::processes,
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
    /// Whether it lives in another network namespace than this process, with settings of its own; none where this process may not look.
    pub is_elsewhere: Option<bool>,
}

impl Master {
    /// Whether it is nginx's, by its name.
    pub fn is_nginx(&self) -> bool {
        self.comm == "nginx"
    }
}

/// Every master of this host.
pub fn masters() -> Vec<Master> {
    let pids = match processes::pids() {
        Ok(pids) => pids,
        Err(error) => {
            crate::notice!("nginx and php-fpm are not looked for: /proc cannot be read ({error})");
            return Vec::new();
        }
    };
    let mut unseen = Unseen::default();
    let ours: Vec<(Process, Stat)> = pids
        .into_iter()
        .filter_map(|pid| unseen.or(look(pid)))
        // Whoever has ended and waits to be reaped serves nobody.
        .filter(|(_, stat)| stat.state != 'Z' && (stat.comm == "nginx" || stat.comm.starts_with("php-fpm")))
        .collect();
    let is_ours = |pid: i32, comm: &str| ours.iter().any(|(_, stat)| stat.pid == pid && stat.comm == comm);
    let here = unseen.or(Process::myself().and_then(|me| network(&me)));
    unseen.report();
    let masters: Vec<&(Process, Stat)> =
        ours.iter().filter(|(_, stat)| !is_ours(stat.ppid, &stat.comm)).collect();
    if masters.is_empty() {
        return Vec::new();
    }
    let listeners = listeners(masters.iter().map(|(_, stat)| stat.pid));
    let of = |pid: i32| {
        let all = listeners.as_ref()?;
        Some(all.get(&pid).map_or_else(Vec::new, |its| its.iter().cloned().collect()))
    };
    masters
        .into_iter()
        .map(|(process, stat)| Master {
            pid: stat.pid,
            comm: stat.comm.clone(),
            workers: ours.iter().filter(|(child, of)| of.ppid == stat.pid && is_worker(child)).count(),
            listeners: of(stat.pid),
            is_elsewhere: match (here, network(process)) {
                (Some(here), Ok(there)) => Some(here != there),
                _ => None,
            },
        })
        .collect()
}

/// Processes that are there and cannot be looked at.
#[derive(Default)]
struct Unseen {
    count: u64,
    first: Option<ProcError>,
}

impl Unseen {
    /// What was found at a process; none if it has gone, or cannot be looked at, which is counted.
    fn or<T>(&mut self, found: ProcResult<T>) -> Option<T> {
        processes::still(found).unwrap_or_else(|error| {
            self.count += 1;
            self.first.get_or_insert(error);
            None
        })
    }

    fn report(&self) {
        if let Some(error) = &self.first {
            crate::notice!(
                "{} cannot be looked at ({error}): whether nginx and php-fpm are among them is not known",
                count(self.count, "process")
            );
        }
    }
}

fn look(pid: i32) -> ProcResult<(Process, Stat)> {
    let process = Process::new(pid)?;
    let stat = process.stat()?;
    Ok((process, stat))
}

/// nginx's cache manager and loader serve nobody, and who has gone does not either.
fn is_worker(process: &Process) -> bool {
    process.cmdline().is_ok_and(|title| {
        let title = title.join(" ");
        !title.contains("cache manager process") && !title.contains("cache loader process")
    })
}

fn network(process: &Process) -> ProcResult<u64> {
    let namespaces = process.namespaces()?;
    let network = namespaces.0.get(&OsString::from("net")).ok_or(ProcError::NotFound(None))?;
    Ok(network.identifier)
}

/// Where these processes listen; none where this process may not ask.
fn listeners<'a>(pids: impl Iterator<Item = i32> + 'a) -> Option<HashMap<i32, BTreeSet<String>>> {
    let held = match held_sockets(pids.map(i32::cast_unsigned)) {
        Ok(held) => held,
        // Nothing is traced here, and why is reported anyway.
        Err(Failure::CannotTrace(_)) => return None,
        Err(error) => {
            crate::notice!("where nginx and php-fpm listen is not known: {error}");
            return None;
        }
    };
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
