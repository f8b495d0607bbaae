//! What is to be looked up about a failure, and how often.

use std::{collections::HashMap, fs, io, net::SocketAddr, os::unix::fs::MetadataExt as _, path::Path};

use nix::sys::signal::Signal;
use wire::{DropReason, ExchangeRecord, FAMILY_UNIX, HeldSocket, WorkerEnd};

use super::configurations::Configurations;
use crate::{
    ledger::Said,
    load::held_sockets,
    model::{
        budget,
        clock::{clock_offset, monotonic_ns},
        failure::Failure,
        from_wire::{address, comm, holder_of, path_of},
        inquiry::{About, Conntrack, Denial, Found, Inquiry, Kind, Ordinary, Place},
        upstream::Upstream,
        verdict::Process,
    },
    procfs::{
        host::{
            self, Master, conntrack, denial, last_worked_ms,
            php_fpm::{Pool, Pools, pools},
        },
        processes::pids,
    },
};

const ENOENT: u32 = 2;
const EACCES: u32 = 13;
const ENETUNREACH: u32 = 101;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;

/// So many questions are answered in a second; what comes beyond is judged without, and where that says less, it is reported.
const MOST_A_SECOND: usize = 20;

/// So many processes are asked for their sockets at once.
const AT_ONCE: usize = 4_096;

/// Network namespaces whose table of connections is remembered.
const MOST_NAMESPACES: usize = 64;

/// One second, in ns.
const SECOND_NS: u64 = 1_000_000_000;

/// What was asked within the last second, and what was found.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    began_ns: u64,
    asked: usize,
    /// What the table of connections of each network namespace had dropped when it was last looked at.
    dropped: HashMap<u32, u64>,
    /// When somebody looked, and what was found.
    found: HashMap<(u32, u32, Upstream), (u64, Option<Found>)>,
}

impl Inquiries {
    /// What there is to know about a word.
    pub(super) fn of_word(&mut self, said: &Said, configurations: &mut Configurations) -> Option<Inquiry> {
        if !said.is_of_connect() {
            return None;
        }
        let about = About::Word { thread: said.thread, ns: said.ns };
        let found = self.of_connect(said.nginx.pid, said.errno, said.ns, || said.peer(), configurations)?;
        Some(Inquiry { about, found })
    }

    /// What there is to know about an exchange.
    pub(super) fn of_exchange(
        &mut self,
        exchange: &ExchangeRecord,
        configurations: &mut Configurations,
    ) -> Option<Inquiry> {
        let nginx = &exchange.nginx;
        let about = About::Exchange((nginx.sock, nginx.connect_ns));
        let is_kept_open = exchange.worker.sock != 0 && exchange.worker.ended_ns == 0;
        if exchange.stops.gone.ns != 0 && is_kept_open && self.may_ask() {
            let sock = exchange.worker.sock;
            let holders = configurations.ask(move |_| holders(sock)).flatten()?;
            return Some(Inquiry { about, found: Found::Holders(holders) });
        }
        if nginx.established_ns != 0 {
            let master = killed_by_fpm(&exchange.worker).filter(|_| self.may_ask())?;
            let listens = upstream_of(exchange);
            let found = configurations.ask(move |_| terminate_after(master, &listens));
            return Some(Inquiry { about, found: Found::TerminateAfter(found.flatten()) });
        }
        if nginx.dropped.ns != 0 && nginx.dropped.reason == DropReason::Netfilter as u32 && self.may_ask() {
            return self.of_table(nginx.nginx.tgid, nginx.netns).map(|found| Inquiry { about, found });
        }
        let upstream = || match nginx.upstream.family {
            FAMILY_UNIX => Some(Upstream::Unix(path_of(&exchange.path))),
            _ => Some(Upstream::Inet(address(&nginx.upstream))),
        };
        let (pid, failed_ns) = (nginx.nginx.tgid, nginx.ended_ns);
        let found = self.of_connect(pid, nginx.error, failed_ns, upstream, configurations)?;
        Some(Inquiry { about, found })
    }

    /// What there is to know about a connect of this process's that failed then.
    fn of_connect(
        &mut self,
        pid: u32,
        error: u32,
        failed_ns: u64,
        upstream: impl FnOnce() -> Option<Upstream>,
        configurations: &mut Configurations,
    ) -> Option<Found> {
        let upstream = upstream()?;
        let is_of_use = match upstream {
            Upstream::Unix(_) => matches!(error, ENOENT | EACCES | ECONNREFUSED),
            Upstream::Inet(_) => error == EACCES || is_without_answer(error),
            Upstream::Named(_) => false,
        };
        if !is_of_use {
            return None;
        }
        let key = (pid, error, upstream);
        self.begin_second();
        // What forbade one connect may not be what forbids the next. To look at that again is cheap.
        let is_of_this = |looked_ns: u64| error != EACCES || looked_ns >= failed_ns;
        if let Some((looked_ns, found)) = self.found.get(&key)
            && (is_of_this(*looked_ns) || self.asked >= MOST_A_SECOND / 2)
        {
            return found.clone();
        }
        let is_asked = self.may_ask();
        let (pid, error, upstream) = key.clone();
        let looked_ns = monotonic_ns();
        // A path may lead where looking takes for ever.
        let answer = if is_asked {
            configurations.ask(move |_| look_up(pid, error, failed_ns, &upstream)).flatten()
        } else {
            None
        };
        let found = answer.or_else(|| (error == EACCES).then(|| unasked(is_asked)));
        if is_asked {
            self.found.insert(key, (looked_ns, found.clone()));
        }
        found
    }

    /// Looks at the table of connections of those who run already, so that it is known what was dropped since.
    pub(super) fn begin(&mut self, running: &[u32]) {
        for pid in running.iter().take(MOST_NAMESPACES) {
            // A process that has gone, or a kernel without such a table: then there is nothing to compare with.
            let Ok(netns) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
            let _found = self.of_table(*pid, u32::try_from(netns.ino()).unwrap_or_default());
        }
    }

    /// The table of connections in this network namespace, in which this process lives.
    fn of_table(&mut self, pid: u32, netns: u32) -> Option<Found> {
        // Where connections are not tracked there is none.
        let table = conntrack(pid).ok()?;
        let before = self.dropped.insert(netns, table.drops);
        if self.dropped.len() > MOST_NAMESPACES {
            self.dropped.retain(|known, _| *known == netns);
        }
        let risen = before.map(|before| table.drops.saturating_sub(before));
        Some(Found::Conntrack(Conntrack { risen, ..table }))
    }

    /// Whether one more question may be asked in this second.
    fn may_ask(&mut self) -> bool {
        self.begin_second();
        self.asked += 1;
        self.asked <= MOST_A_SECOND
    }

    fn begin_second(&mut self) {
        let now = monotonic_ns();
        if now >= self.began_ns.saturating_add(SECOND_NS) {
            self.began_ns = now;
            self.asked = 0;
            self.found.clear();
        }
    }
}

/// The master of php-fpm's that sent this worker the SIGTERM that it died of, as it does at a timeout of a request, a reload or a stop.
fn killed_by_fpm(worker: &WorkerEnd) -> Option<u32> {
    let signal = &worker.signal;
    let is_term = worker.exiting != 0 && signal.number == Signal::SIGTERM as u32;
    let is_fpm = signal.from_parent != 0 && comm(&signal.sender).starts_with("php-fpm");
    (is_term && is_fpm && signal.sender.tgid > 1).then_some(signal.sender.tgid)
}

/// Where the worker's listener is.
fn upstream_of(exchange: &ExchangeRecord) -> Upstream {
    match exchange.nginx.upstream.family {
        FAMILY_UNIX => Upstream::Unix(path_of(&exchange.path)),
        _ => Upstream::Inet(address(&exchange.worker.local)),
    }
}

/// `request_terminate_timeout` of the pool that listens there (s), zero for none.
fn terminate_after(master: u32, listens: &Upstream) -> Option<u64> {
    let Pools { pools, gap } = Master::believe(master).and_then(|master| pools(&master)).ok()?;
    let is_its = |pool: &&Pool| match (&pool.listen, listens) {
        (Upstream::Inet(pool), Upstream::Inet(at)) => {
            pool.port() == at.port() && (pool.ip() == at.ip() || pool.ip().is_unspecified())
        }
        (pool, at) => pool == at,
    };
    match (&pools[..], gap) {
        ([only], None) => only.terminate_after_s,
        _ => pools.iter().find(is_its)?.terminate_after_s,
    }
}

/// What is said where nothing was looked up.
fn unasked(is_asked: bool) -> Found {
    let ordinary = if is_asked { Ordinary::Unknown } else { Ordinary::LeftOut };
    Found::Denial(Denial { ordinary, selinux: false, label: None, seccomp: false })
}

/// A moment of the monotonic clock on the wall's (ns since 1970).
fn wall_ns(ns: u64) -> i64 {
    ns.cast_signed().saturating_add(clock_offset().0)
}

/// Looks around after a connect that was refused or forbidden then.
fn look_up(pid: u32, error: u32, failed_ns: u64, upstream: &Upstream) -> Option<Found> {
    match upstream {
        Upstream::Unix(path) if error == ENOENT => has_folder(pid, path),
        Upstream::Unix(path) if error == ECONNREFUSED => Some(Found::Place(at(pid, path))),
        Upstream::Inet(address) if is_without_answer(error) => reached(pid, *address),
        _ => Some(Found::Denial(denial(pid, upstream, wall_ns(failed_ns)))),
    }
}

/// Whether a connect over TCP that ended so got no answer; zero where nginx, or its client, waited no longer.
fn is_without_answer(error: u32) -> bool {
    matches!(error, 0 | ENETUNREACH | ETIMEDOUT | EHOSTUNREACH)
}

/// When a connection with this address last worked; none where the kernel of that process's network remembers none.
fn reached(pid: u32, address: SocketAddr) -> Option<Found> {
    let ago_ns = last_worked_ms(pid, address).ok()??.saturating_mul(1_000_000);
    Some(Found::Reached(monotonic_ns().saturating_sub(ago_ns).max(1)))
}

/// Whether the folder that this path should be in is there for that process; none where that cannot be found out, or the path itself is
/// there by now.
fn has_folder(pid: u32, path: &Path) -> Option<Found> {
    let folder = path.parent()?;
    let is_missing = |path: &Path| match host::place(pid, path) {
        Ok(place) => Some((false, place.kind)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some((true, Kind::Unknown)),
        Err(_) => None,
    };
    if !is_missing(path)?.0 {
        return None;
    }
    let (is_gone, kind) = is_missing(folder)?;
    (is_gone || kind == Kind::Folder).then_some(Found::Missing { has_folder: !is_gone })
}

/// What this path leads to for that process, and who has bound a socket to it.
fn at(pid: u32, path: &Path) -> Place {
    let Ok(place) = host::place(pid, path) else { return Place { kind: Kind::Unknown, bound: None } };
    let is_bound = |held: &HeldSocket| {
        let is_name = held.name().is_some_and(|name| path_of(name).file_name() == path.file_name());
        held.local.family == FAMILY_UNIX && held.place == place.inode && is_name
    };
    let look = || {
        all_sockets(is_bound)
            .inspect_err(|error| crate::notice!("who has bound {} is not known: {error}", path.display()))
    };
    let bound = if place.kind == Kind::Socket { look().ok() } else { None };
    Place { kind: place.kind, bound }
}

/// The processes that have this socket among their open files; none where they cannot be looked at.
fn holders(sock: u64) -> Option<Vec<Process>> {
    let found = all_sockets(|held| held.sock == sock);
    found.inspect_err(|error| crate::notice!("who holds a connection is not known: {error}")).ok()
}

/// The processes that have one of these sockets, so many of them as are named.
fn all_sockets(is_meant: impl Fn(&HeldSocket) -> bool) -> Result<Vec<Process>, Failure> {
    let mut holders = Vec::new();
    each_socket(|held| {
        let process = holder_of(held);
        if is_meant(held) && holders.len() < budget::HOLDERS && !holders.contains(&process) {
            holders.push(process);
        }
    })?;
    Ok(holders)
}

/// Every socket that any process of this host has open.
pub(super) fn each_socket(mut take: impl FnMut(&HeldSocket)) -> Result<(), Failure> {
    let pids: Vec<u32> = pids().map_err(anyhow::Error::from)?.into_iter().map(i32::cast_unsigned).collect();
    for pids in pids.chunks(AT_ONCE) {
        held_sockets(pids.iter().copied())?.iter().for_each(&mut take);
    }
    Ok(())
}
