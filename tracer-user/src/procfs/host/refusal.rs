//! Why something that was found through a process is not believed, or cannot be read.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::errno::Errno;
use thiserror::Error;

use super::nginx::Fault;

/// Why something that was found through a process is not believed, or cannot be read. Never quotes a file: it may have been made to lead
/// to one that is nobody's business.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("it runs as user {0}, not as root")]
    ForeignUser(u32),
    #[error("it runs in a user namespace of its own, where root is anybody")]
    ForeignUserNamespace,
    #[error("its executable belongs to user {0}, not to root")]
    ForeignExecutable(u32),
    #[error("its executable may be written by others than its owner")]
    WritableExecutable,
    #[error("its executable is no nginx: it does not say how it was configured")]
    NoNginx,
    #[error("its command line cannot be understood")]
    CommandLine,
    #[error("its command line is cut off, so that its configuration file is not known")]
    CommandLineCut,
    #[error("it does not say which file configures it")]
    NoConfigurationNamed,
    #[error("it has ended, or has become another program")]
    Changed,
    #[error("it listens in another network namespace than it lives in")]
    Elsewhere,
    #[error("its /proc entry `{what}` cannot be read: {error}")]
    Process { what: &'static str, error: String },

    #[error("{} belongs to user {uid}, not to root", path.display())]
    ForeignOwner { path: PathBuf, uid: u32 },
    #[error("{} may be written by others than its owner", .0.display())]
    Writable(PathBuf),
    #[error("a folder on the way to {} belongs to user {uid}, not to root", path.display())]
    ForeignFolder { path: PathBuf, uid: u32 },
    #[error("a folder on the way to {} may be written by others than its owner", .0.display())]
    WritableFolder(PathBuf),
    #[error("{} leads through a link of user {uid}'s, which is not followed", path.display())]
    ForeignLink { path: PathBuf, uid: u32 },
    #[error("{} leads through too many links", .0.display())]
    Links(PathBuf),
    #[error("{} is no regular file", .0.display())]
    NoFile(PathBuf),
    #[error("{} is no socket", .0.display())]
    NoSocket(PathBuf),
    #[error("{}: {errno}", path.display())]
    System { path: PathBuf, errno: Errno },

    #[error("{} has more than {} KiB", path.display(), limit / 1024)]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("all its files have more than {} KiB", .0 / 1024)]
    TooMuch(u64),
    #[error("it has more than {0} files")]
    TooManyFiles(usize),
    #[error("its folders have more than {0} names")]
    TooManyNames(usize),
    #[error("it has more than {0} words")]
    TooManyWords(usize),
    #[error("to read it takes more than {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("{} includes itself", .0.display())]
    Loop(PathBuf),
    #[error("{} is included too deeply", .0.display())]
    TooDeep(PathBuf),
    #[error("{}, line {line}: {fault}", path.display())]
    Syntax { path: PathBuf, line: u32, fault: Fault },
    #[error("{} is no configuration of php-fpm's", .0.display())]
    NoIni(PathBuf),
    #[error("{} includes files from a folder that is compiled into php-fpm", .0.display())]
    RelativeInclude(PathBuf),
}

impl Refusal {
    /// A system call on a path failed.
    pub(super) fn system(path: &Path) -> impl Fn(Errno) -> Self {
        |errno| Self::System { path: path.to_owned(), errno }
    }

    /// Reading or opening a path failed.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        |error| Self::System {
            path: path.to_owned(),
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        }
    }

    /// Whether there is nothing at that path.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::System { errno: Errno::ENOENT | Errno::ENOTDIR, .. })
    }

    /// Whether a limit of all files together was met, so that no further file can be read.
    pub(super) fn is_exhaustion(&self) -> bool {
        matches!(
            self,
            Self::TooMuch(_)
                | Self::TooManyFiles(_)
                | Self::TooManyNames(_)
                | Self::TooManyWords(_)
                | Self::TooSlow(_)
        )
    }
}
