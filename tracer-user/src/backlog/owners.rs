//! Which process a listening socket belongs to.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use procfs::process::{FDTarget, all_processes};

use crate::{budget, load::Shown, verdict::Process};

/// A descriptor of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub process: Process,
    /// The descriptor's number in that process.
    pub fd: i32,
}

/// What is known of the holders of sockets, by inode number.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// None for one that nobody holds: the kernel's own, or one that is gone.
    found: HashMap<u64, Option<Holder>>,
}

impl Owners {
    /// Looks for the owners of sockets that were not looked for before; /proc is walked only if there are any. Of several holders
    /// the one that called listen is the owner, or else the oldest one: a master hands its listeners on to its workers.
    pub fn look_for(&mut self, inodes: impl Iterator<Item = (u64, u32)>, shown: &[Shown]) {
        let wanted: HashMap<u64, u32> =
            inodes.filter(|(inode, _)| *inode != 0 && !self.found.contains_key(inode)).collect();
        if wanted.is_empty() {
            return;
        }
        let first: HashMap<u64, i32> = shown.iter().map(|shown| (shown.inode, shown.pid)).collect();
        let mut found: HashMap<u64, Option<Holder>> = wanted.keys().map(|inode| (*inode, None)).collect();
        let Ok(processes) = all_processes() else { return };
        for process in processes.flatten() {
            let Ok(descriptors) = process.fd() else { continue };
            for descriptor in descriptors.flatten() {
                let FDTarget::Socket(inode) = descriptor.target else { continue };
                let Some(&listened) = wanted.get(&inode) else { continue };
                let is_owner = u32::try_from(process.pid).is_ok_and(|pid| pid == listened)
                    || first.get(&inode) == Some(&process.pid);
                let entry = found.entry(inode).or_default();
                if entry.is_none() || is_owner {
                    let comm = process.stat().map(|stat| stat.comm).unwrap_or_default();
                    let process = Process { pid: process.pid.cast_unsigned(), comm };
                    *entry = Some(Holder { process, fd: descriptor.fd });
                }
            }
        }
        self.found.extend(found);
    }

    /// Whether nobody holds this socket any more. Should its holder have closed it while another one keeps it, that one is its
    /// owner from now on.
    pub fn is_abandoned(&mut self, inode: u64) -> bool {
        let Some(Some(Holder { process, fd })) = self.found.get(&inode) else { return false };
        let link = fs::read_link(format!("/proc/{}/fd/{fd}", process.pid)).unwrap_or_default();
        if link.as_os_str() == format!("socket:[{inode}]").as_str() {
            return false;
        }
        self.found.remove(&inode);
        self.look_for(std::iter::once((inode, 0)), &[]);
        self.of(inode).is_none()
    }

    /// Forgets the owners of sockets that are none of these, if there are many of them.
    pub fn forget_others(&mut self, inodes: &HashSet<u64>) {
        if self.found.len() > inodes.len() + budget::CLOSED_LISTENERS {
            self.found.retain(|inode, _| inodes.contains(inode));
        }
    }

    /// The owner of the socket with this inode number.
    pub fn of(&self, inode: u64) -> Option<&Holder> {
        self.found.get(&inode)?.as_ref()
    }
}
