//! Which process a listening socket belongs to.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::Arc,
};

use wire::{HeldSocket, accept_queue::Listener};

use super::is_unix;
use crate::{
    load::Backlog,
    model::{cgroup::Cgroup, from_wire::holder_of, verdict::Process},
    procfs::cgroup,
};

/// A descriptor of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub process: Process,
    /// Its control group, if that is known.
    pub cgroup: Option<Arc<Cgroup>>,
    /// The descriptor's number in that process.
    pub fd: u32,
}

/// What is known of the holders of sockets, by inode number.
#[derive(Debug)]
pub(crate) struct Owners {
    /// None for one that nobody holds: the kernel's own, or one that is gone.
    found: HashMap<u64, Option<Holder>>,
}

impl Owners {
    /// The owners of all listeners that exist already, which the kernel side learns by that: the oldest holder of each.
    pub fn of_all(backlog: &mut Backlog) -> Self {
        let mut found = HashMap::new();
        // Those that are missing then are looked for later.
        let _is_all = backlog.holders(|held| {
            found.entry(held.inode).or_insert_with(|| Some(holder(held)));
        });
        Self { found }
    }

    /// Looks for the owners of those listeners that were not looked for before, and forgets those of others; the host's open files are
    /// visited only if there are any. Of several holders the one that called listen is the owner, or else the oldest one: a master hands its
    /// listeners on to its workers.
    pub fn follow(&mut self, listeners: &[Listener], backlog: &mut Backlog) {
        let mut wanted: HashMap<u64, u32> =
            listeners.iter().map(|listener| (listener.inode, listener.tgid)).collect();
        self.found.retain(|inode, _| wanted.contains_key(inode));
        wanted.retain(|inode, _| *inode != 0 && !self.found.contains_key(inode));
        if wanted.is_empty() {
            return;
        }
        let (found, is_all) = search(&wanted, backlog);
        // Whom nobody was found to hold is not known to be held by nobody unless all were visited.
        self.found.extend(found.into_iter().filter(|(_, holder)| is_all || holder.is_some()));
    }

    /// No hook shows everywhere that a unix listener was closed: one whose inode nobody holds any more is gone. Has the kernel side forget
    /// these; returns each as it was last.
    pub fn bury(&mut self, listeners: &[Listener], backlog: &mut Backlog) -> Vec<Listener> {
        let unix = || listeners.iter().filter(|listener| is_unix(listener) && listener.inode != 0);
        let abandoned = self.abandoned(unix().map(|listener| listener.inode), backlog);
        let gone = unix().filter(|listener| abandoned.contains(&listener.inode));
        gone.filter(|listener| backlog.bury(listener)).copied().collect()
    }

    /// Those of these sockets that nobody holds any more. Should its holder have closed one while another one keeps it, that one is its
    /// owner from now on.
    fn abandoned(&mut self, inodes: impl Iterator<Item = u64>, backlog: &mut Backlog) -> HashSet<u64> {
        let left: HashMap<u64, u32> =
            inodes.filter(|inode| self.was_left(*inode)).map(|inode| (inode, 0)).collect();
        if left.is_empty() {
            return HashSet::new();
        }
        let (found, is_all) = search(&left, backlog);
        if !is_all {
            return HashSet::new();
        }
        let abandoned =
            found.iter().filter(|(_, holder)| holder.is_none()).map(|(inode, _)| *inode).collect();
        self.found.extend(found);
        abandoned
    }

    /// Whether the holder of a socket is known to hold it no more.
    fn was_left(&self, inode: u64) -> bool {
        let Some(Some(Holder { process, cgroup: _, fd })) = self.found.get(&inode) else { return false };
        let link = fs::read_link(format!("/proc/{}/fd/{fd}", process.pid));
        // A process that has gone shows none.
        !link.is_ok_and(|link| link.as_os_str() == format!("socket:[{inode}]").as_str())
    }

    /// The owner of the socket with this inode number.
    pub fn of(&self, inode: u64) -> Option<&Holder> {
        self.found.get(&inode)?.as_ref()
    }
}

/// The owners of these sockets, and whether all that hold any were visited.
fn search(wanted: &HashMap<u64, u32>, backlog: &mut Backlog) -> (HashMap<u64, Option<Holder>>, bool) {
    let mut found: HashMap<u64, Option<Holder>> = wanted.keys().map(|inode| (*inode, None)).collect();
    let is_all = backlog.holders(|held| {
        let Some(&listened) = wanted.get(&held.inode) else { return };
        let entry = found.entry(held.inode).or_default();
        if entry.is_none() || held.tgid == listened && !is_of(entry.as_ref(), listened) {
            *entry = Some(holder(held));
        }
    });
    (found, is_all)
}

fn is_of(holder: Option<&Holder>, pid: u32) -> bool {
    holder.is_some_and(|holder| holder.process.pid == pid)
}

fn holder(held: &HeldSocket) -> Holder {
    Holder { process: holder_of(held), cgroup: cgroup::of_process(held.tgid).map(Arc::new), fd: held.fd }
}
