//! The files of a process as it sees them: inside of its root, by ways that only root could have laid.

use std::{
    collections::BTreeSet,
    ffi::{CString, OsStr, OsString},
    fs::{File, Metadata},
    io::Read as _,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat},
};

use super::{Budget, Refusal, is_ours};

/// As many as the kernel follows (`MAXSYMLINKS`, include/linux/namei.h).
const LINKS: usize = 40;

/// Which file it is, whatever path leads to it: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity(u64, u64);

impl From<&FileStat> for Identity {
    fn from(stat: &FileStat) -> Self {
        Self(stat.st_dev, stat.st_ino)
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// By which ways a path may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Each folder and each link is root's, and nobody else can put a name there.
    Roots,
    /// Each link is root's; the folders may be anybody's. For what proves by itself whose it is.
    RootsLinks,
}

/// The root folder of a process.
///
/// Paths are walked name by name, since no flag of `openat2(2)` says whose the folders and links on the way are. Links lead where they do
/// for the process: an absolute one to its root, `..` no further up than that. Nothing is opened before it is known what it is.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// The root at this folder.
    pub(super) fn new(folder: OwnedFd) -> Self {
        Self(folder)
    }

    /// Reads a file of a configuration: root's own, that nobody else may write, at the end of a way of the same kind. As nginx does, it is
    /// read as far as its size goes, so nothing of what procfs makes up is.
    pub(super) fn read(&self, path: &Path, budget: &mut Budget) -> Result<(String, FileStat), Refusal> {
        let (node, stat) = self.walk(path, Way::Roots)?;
        if kind(&stat) != SFlag::S_IFREG {
            return Err(Refusal::NoFile(path.to_owned()));
        }
        is_roots(path, &stat)?;
        let size = stat.st_size.cast_unsigned();
        budget.file(path, size)?;
        budget.changed(stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(stat.st_ctime_nsec));
        let mut bytes = Vec::new();
        if size > 0 {
            let file = reopen(&node).map_err(Refusal::io(path))?;
            file.take(size).read_to_end(&mut bytes).map_err(Refusal::io(path))?;
        }
        Ok((String::from_utf8_lossy(&bytes).into_owned(), stat))
    }

    /// Which file is at a path, without opening it.
    pub(super) fn identity(&self, path: &Path) -> Result<Identity, Refusal> {
        Ok(Identity::from(&self.walk(path, Way::Roots)?.1))
    }

    /// A unix socket. Whose it is shows once it is connected to, by `/proc/self/fd/N` of the descriptor (which is an `O_PATH`).
    pub(crate) fn socket(&self, path: &Path) -> Result<OwnedFd, Refusal> {
        let (node, stat) = self.walk(path, Way::RootsLinks)?;
        if kind(&stat) == SFlag::S_IFSOCK { Ok(node) } else { Err(Refusal::NoSocket(path.to_owned())) }
    }

    /// The paths that a pattern with `*`, `?` and `[` stands for, in order, as glob(3) finds them. Those of names without any of the
    /// three need not exist.
    pub(super) fn expand(&self, pattern: &Path, budget: &mut Budget) -> Result<Vec<PathBuf>, Refusal> {
        let mut found = vec![PathBuf::from("/")];
        for component in pattern.components() {
            let name = match component {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            };
            if !is_pattern(name) {
                found.iter_mut().for_each(|path| path.push(name));
                continue;
            }
            let mut matching = Vec::new();
            for folder in found {
                let names = match self.names(&folder, budget) {
                    Ok(names) => names,
                    Err(refusal) if refusal.is_missing() => continue,
                    Err(refusal) => return Err(refusal),
                };
                matching.extend(
                    names.iter().filter(|entry| matches(name, entry)).map(|entry| folder.join(entry)),
                );
            }
            found = matching;
        }
        Ok(found)
    }

    /// The names in a folder, sorted.
    fn names(&self, folder: &Path, budget: &mut Budget) -> Result<BTreeSet<OsString>, Refusal> {
        let (node, stat) = self.walk(folder, Way::Roots)?;
        if kind(&stat) != SFlag::S_IFDIR {
            return Err(Refusal::System { path: folder.to_owned(), errno: Errno::ENOTDIR });
        }
        let entries = std::fs::read_dir(own(&node)).map_err(Refusal::io(folder))?;
        let mut names = BTreeSet::new();
        for entry in entries {
            budget.name()?;
            names.insert(entry.map_err(Refusal::io(folder))?.file_name());
        }
        Ok(names)
    }

    /// What is at an absolute path: an `O_PATH` descriptor of it, and what it is.
    fn walk(&self, path: &Path, way: Way) -> Result<(OwnedFd, FileStat), Refusal> {
        let failed = Refusal::system(path);
        let top = || openat(&self.0, ".", PATH_ONLY, Mode::empty()).map_err(&failed);
        let mut here = top()?;
        let mut stat = fstat(&here).map_err(&failed)?;
        may_pass(path, &stat, way)?;
        // The folders that were passed, and the names still to go, the next one last.
        let (mut passed, mut names, mut links) = (Vec::new(), reversed(path.as_os_str()), 0);
        while let Some(name) = names.pop() {
            if kind(&stat) != SFlag::S_IFDIR {
                return Err(failed(Errno::ENOTDIR));
            }
            if name == ".." {
                if let Some(above) = passed.pop() {
                    (here, stat) = above;
                }
                continue;
            }
            let next = openat(&here, name.as_os_str(), PATH_ONLY, Mode::empty()).map_err(&failed)?;
            let of_next = fstat(&next).map_err(&failed)?;
            if kind(&of_next) != SFlag::S_IFLNK {
                if kind(&of_next) == SFlag::S_IFDIR {
                    may_pass(path, &of_next, way)?;
                }
                passed.push((std::mem::replace(&mut here, next), std::mem::replace(&mut stat, of_next)));
                continue;
            }
            links += 1;
            if links > LINKS {
                return Err(Refusal::Links(path.to_owned()));
            }
            if !is_ours(of_next.st_uid) {
                return Err(Refusal::ForeignLink { path: path.to_owned(), uid: of_next.st_uid });
            }
            // For a magic link of procfs's this is a text, too, and no way out.
            let target = readlinkat(&next, "").map_err(&failed)?;
            if target.as_bytes().starts_with(b"/") {
                passed.clear();
                here = top()?;
                stat = fstat(&here).map_err(&failed)?;
            }
            names.extend(reversed(&target));
        }
        Ok((here, stat))
    }
}

const PATH_ONLY: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The names of a path, the first one last. A trailing slash asks for a folder, which nobody does who names a file.
fn reversed(path: &OsStr) -> Vec<OsString> {
    let names = path.as_bytes().split(|byte| *byte == b'/');
    names
        .filter(|name| !name.is_empty() && *name != b".")
        .rev()
        .map(|name| OsString::from_vec(name.into()))
        .collect()
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether a file or folder is root's, and nobody else may write there. An access control list that lets someone shows in the group's bits.
fn is_roots(path: &Path, stat: &FileStat) -> Result<(), Refusal> {
    if !is_ours(stat.st_uid) {
        return Err(Refusal::ForeignOwner { path: path.to_owned(), uid: stat.st_uid });
    }
    if stat.st_mode & (Mode::S_IWGRP | Mode::S_IWOTH).bits() != 0 {
        return Err(Refusal::Writable(path.to_owned()));
    }
    Ok(())
}

fn may_pass(path: &Path, stat: &FileStat, way: Way) -> Result<(), Refusal> {
    // In a folder like /tmp others may add names, and what has root's name stays root's.
    let is_sticky = stat.st_mode & Mode::S_ISVTX.bits() != 0 && is_ours(stat.st_uid);
    if way == Way::RootsLinks || is_sticky {
        return Ok(());
    }
    is_roots(path, stat).map_err(|refusal| match refusal {
        Refusal::ForeignOwner { path, uid } => Refusal::ForeignFolder { path, uid },
        Refusal::Writable(path) => Refusal::WritableFolder(path),
        other => other,
    })
}

/// The way to a descriptor's own file.
pub(super) fn own(node: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", node.as_fd().as_raw_fd()))
}

pub(super) fn reopen(node: &OwnedFd) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(own(node))
}

/// Whether a name stands for others (ngx_conf_include, src/core/ngx_conf_file.c).
pub(super) fn is_pattern(name: &OsStr) -> bool {
    name.as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// Whether a name is one that a pattern stands for, by the same function that glob(3) asks.
fn matches(pattern: &OsStr, name: &OsStr) -> bool {
    let (Ok(pattern), Ok(name)) = (CString::new(pattern.as_bytes()), CString::new(name.as_bytes())) else {
        return false;
    };
    // SAFETY: both are strings that end with a zero and outlive the call.
    unsafe { libc::fnmatch(pattern.as_ptr(), name.as_ptr(), libc::FNM_PERIOD) == 0 }
}

#[cfg(test)]
mod tests;
