//! From a control group's identity to its path: its folder's inode number in the default hierarchy.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirEntryExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use crate::{model::clock::monotonic_ns, procfs::processes};

/// Folders that are looked at in one walk: a host with hundreds of containers has some thousands.
const FOLDERS: usize = 16_384;

/// The time between two walks, in ns.
const PERIOD_NS: u64 = 2_000_000_000;

/// How deep folders lie: systemd's and the runtimes' lie within ten.
const DEPTH: usize = 32;

/// The control groups that are there, or were when they were last looked at.
#[derive(Debug)]
pub(super) struct Ids {
    /// Where the default hierarchy is mounted; none if it is not.
    mount: Option<PathBuf>,
    paths: HashMap<u64, String>,
    walked_ns: u64,
}

impl Ids {
    /// Those that are there now.
    pub(super) fn now() -> Self {
        let mount = mount().unwrap_or_else(|error| {
            crate::notice!("where control groups are mounted is not known: {error}");
            None
        });
        let mut ids = Self { mount, paths: HashMap::new(), walked_ns: 0 };
        ids.walk();
        ids
    }

    /// The path of a control group; none if it went before anybody looked.
    pub(super) fn path(&mut self, id: u64) -> Option<&str> {
        if !self.paths.contains_key(&id) && monotonic_ns() >= self.walked_ns.saturating_add(PERIOD_NS) {
            self.walk();
        }
        self.paths.get(&id).map(String::as_str)
    }

    /// Looks at all folders, and keeps those that have gone meanwhile as long as there is room: their processes may just have ended.
    fn walk(&mut self) {
        self.walked_ns = monotonic_ns();
        let Some(mount) = &self.mount else { return };
        let mut found = HashMap::new();
        if let Ok(root) = fs::metadata(mount) {
            found.insert(root.ino(), "/".to_owned());
        }
        let mut open = vec![(mount.clone(), 0)];
        while let Some((folder, depth)) = open.pop() {
            // One that has gone meanwhile has nothing in it.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.filter_map(Result::ok) {
                if found.len() >= FOLDERS {
                    break;
                }
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let path = entry.path();
                found.insert(entry.ino(), inside(mount, &path));
                if depth < DEPTH {
                    open.push((path, depth + 1));
                }
            }
        }
        if self.paths.len() + found.len() > 2 * FOLDERS {
            self.paths.clear();
        }
        self.paths.extend(found);
    }
}

/// A folder's path as /proc/PID/cgroup has it.
fn inside(mount: &Path, folder: &Path) -> String {
    let inside = folder.strip_prefix(mount).unwrap_or(folder);
    format!("/{}", inside.to_string_lossy())
}

/// Where the default hierarchy is mounted.
fn mount() -> io::Result<Option<PathBuf>> {
    mount_of("cgroup2", None)
}

/// Where a hierarchy is mounted: of this type of file system and, if any is given, with this controller.
///
/// # Errors
/// Where the mounts cannot be read.
pub fn mount_of(kind: &str, controller: Option<&str>) -> io::Result<Option<PathBuf>> {
    let own = procfs::process::Process::myself().and_then(|own| own.mountinfo());
    let mounts = processes::still(own).map_err(io::Error::other)?;
    let is_it = |mount: &procfs::process::MountInfo| {
        mount.fs_type == kind
            && mount.root == "/"
            && controller.is_none_or(|controller| mount.super_options.contains_key(controller))
    };
    Ok(mounts.into_iter().flatten().find(is_it).map(|mount| mount.mount_point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_that_are_there_have_their_paths() {
        let Some(mount) = mount().unwrap() else { return };
        let mut ids = Ids::now();
        let root = fs::metadata(&mount).unwrap().ino();
        assert_eq!(ids.path(root), Some("/"));
        assert_eq!(ids.path(u64::MAX), None);
    }
}
