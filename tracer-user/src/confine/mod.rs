//! Giving up what is not needed any more: capabilities, system calls, files.
//!
//! | who | capabilities | system calls | files |
//! |---|---|---|---|
//! | tracing, from when all is attached | those of [`KEPT`](crate::model::privileges::KEPT) for each | those in use | what these allow |
//! | a thread apart ([`apart()`]) | the others of `KEPT` as well | and those that change a thread's namespace or user | the same |
//! | the server of metrics | none | no new socket, no file is changed | what /proc says of this process, and whether BPF programs are measured |
//! | `report`, and `top` of files | what it takes to open the files, and none after that | no socket | the files, and what is written |
//! | `serve`'s hook | all: it is its user's program | all | all |
//!
//! Capabilities, filters and Landlock's rules are a thread's own, and those that it starts have them as well: so each of these begins before
//! the threads that it is meant for. A filter and rules cannot be taken off again.
//!
//! Tracing is not under Landlock: who is may not look at processes that are not (`hook_ptrace_access_check`, security/landlock/task.c), by
//! `/proc/PID/exe`, `root`, `fd`, `ns`, `syscall`, as tried on 6.18; and to look at others is what it is for.

mod apart;
mod capabilities;
mod landlock;
mod seccomp;

use std::{
    env, fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

pub use apart::{apart, spawn};

use crate::model::privileges::kept;
use seccomp::Filter;

/// What the running kernel has to confine a process with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// Filters of system calls.
    pub seccomp: bool,
    /// Rules about files.
    pub landlock: bool,
}

impl Means {
    /// Those of this one.
    pub fn here() -> Self {
        Self { seccomp: seccomp::is_here(), landlock: landlock::is_here() }
    }
}

/// Everything is attached: from here on the calling thread, and what it starts, keep only what late work needs. `written` are the files and
/// folders that are yet to be written; `mounts_tracefs` says that a hook that is attached later must mount it. Returns what could not be had,
/// in words.
pub fn tracing(written: &[&Path], mounts_tracefs: bool) -> Vec<String> {
    let elsewhere = written.iter().any(|path| is_elsewhere(path));
    let mut lacking = apart::start(elsewhere, mounts_tracefs);
    lacking.extend(confined(|| capabilities::keep(kept(false, elsewhere)), &Filter::tracing()));
    lacking
}

/// The calling thread serves metrics, and does nothing else; of files it reads what /proc says of this process, and this setting of the
/// kernel's. Returns what could not be had, in words.
pub fn serving(setting: &Path) -> Vec<String> {
    let mut lacking = no_new_privileges();
    lacking.extend(landlock::only(&[Path::new("/proc/self"), setting], &[]).err());
    lacking.extend(confined(|| capabilities::keep([].into_iter()), &Filter::serving()));
    lacking
}

/// The calling thread reads files of others, and does nothing else but write the results. Returns what could not be had, in words.
pub fn reading(files: &[PathBuf], written: &[&Path]) -> Vec<String> {
    let mut lacking = no_new_privileges();
    let written_to: Vec<_> =
        written.iter().map(|path| folder_of(path)).chain([PathBuf::from(TERMINAL)]).collect();
    let zones = env::var_os(ZONES).map(PathBuf::from);
    let read: Vec<_> = files.iter().chain(&zones).map(PathBuf::as_path).chain(READ.map(Path::new)).collect();
    lacking.extend(landlock::only(&read, &written_to).err());
    let elsewhere = written.iter().any(|path| is_elsewhere(path));
    lacking.extend(confined(|| capabilities::keep(capabilities::opening(elsewhere)), &Filter::reading()));
    lacking
}

/// The files are open: what it took to open them is given up as well; but what it takes to write in a folder that is another user's, if
/// something is written there. Returns what could not be had, in words.
pub fn opened(written: &[&Path]) -> Vec<String> {
    let elsewhere = written.iter().any(|path| is_elsewhere(path));
    capabilities::keep(capabilities::writing(elsewhere)).err().into_iter().collect()
}

/// Where keys come from if standard input is a file.
const TERMINAL: &str = "/dev/tty";

/// Names a folder of time zones of the user's own (tzset(3)).
const ZONES: &str = "TZDIR";

/// What is read beside the files: where the time zone is described, and what /proc says of this process.
const READ: [&str; 6] = [
    "/etc/localtime",
    "/etc/timezone",
    "/usr/share/zoneinfo",
    "/usr/share/lib/zoneinfo",
    "/etc/zoneinfo",
    "/proc/self",
];

fn confined(capabilities: impl FnOnce() -> Result<(), String>, filter: &Filter) -> Vec<String> {
    // The filter last: whatever it takes to give up the rest need not be in it.
    no_new_privileges().into_iter().chain(capabilities().err()).chain(filter.put_on().err()).collect()
}

/// No program that is executed from here on, if one is, has more privileges than this thread.
fn no_new_privileges() -> Vec<String> {
    nix::sys::prctl::set_no_new_privs()
        .err()
        .map(|error| format!("no_new_privs is refused: {error}"))
        .into_iter()
        .collect()
}

/// Where a file is, or is to be; a folder is its own.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        _ if path.is_dir() => path.to_owned(),
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => path.to_owned(),
    }
}

/// Whether it takes more than being its user to write there.
fn is_elsewhere(path: &Path) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let is_own = |path: &Path| match fs::metadata(path) {
        Ok(there) => there.uid() == own && there.permissions().mode() & 0o200 != 0,
        // What is not there is made where it is to be.
        Err(_) => true,
    };
    !is_own(path) || !is_own(&folder_of(path))
}

#[cfg(test)]
mod tests;
