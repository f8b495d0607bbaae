//! What a path leads to in another process's root.

use std::{fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::{file, model::inquiry::Kind};

/// A file that a path leads to.
pub(crate) struct Place {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its inode's number.
    pub(crate) inode: u64,
}

/// The root folder of a process: it can be gone through, and not read.
///
/// # Errors
/// If the process has gone, or may not be looked at.
pub(super) fn root_of(pid: u32) -> io::Result<File> {
    file::named(Path::new(&format!("/proc/{pid}/root")))
}

/// How a path is followed below a root, as the process itself follows it: what it leads to is not opened.
pub(super) fn below_root() -> OpenHow {
    let (keep, no_magic) = (ResolveFlag::RESOLVE_IN_ROOT, ResolveFlag::RESOLVE_NO_MAGICLINKS);
    OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(keep | no_magic)
}

/// Whether who may use what this path leads to in the root of this process, or search the folders above it, was changed after a moment (ns since
/// 1970); also where that cannot be found out. What is made in a folder changes nothing of that.
pub(super) fn is_changed_since(pid: u32, path: &Path, ns: i64) -> bool {
    // A file's time of change is that of the last tick of the kernel's clock.
    const TICK_NS: i64 = 10_000_000;
    let is_unchanged = |part: &Path| {
        let found = File::from(openat2(root_of(pid)?, part, below_root())?).metadata()?;
        let (changed, written) = ((found.ctime(), found.ctime_nsec()), (found.mtime(), found.mtime_nsec()));
        let changed_ns = changed.0.saturating_mul(1_000_000_000).saturating_add(changed.1);
        io::Result::Ok(changed_ns < ns.saturating_sub(TICK_NS) || found.is_dir() && changed == written)
    };
    !path.ancestors().all(|part| is_unchanged(part).is_ok_and(|is_unchanged| is_unchanged))
}

/// What a path leads to in the root of this process.
///
/// # Errors
/// If there is nothing, or it cannot be looked at.
pub(crate) fn place(pid: u32, path: &Path) -> io::Result<Place> {
    let found = File::from(openat2(root_of(pid)?, path, below_root())?).metadata()?;
    let kind = match found.mode() & libc::S_IFMT {
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFREG => Kind::Regular,
        libc::S_IFDIR => Kind::Folder,
        _ => Kind::Other,
    };
    Ok(Place { kind, inode: found.ino() })
}
