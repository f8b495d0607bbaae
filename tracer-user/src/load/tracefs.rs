//! tracefs, which numbers the tracepoints on system calls.

use std::{fs, io, panic};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::confine;

const PATH: &str = "/sys/kernel/tracing";

/// Whether the host has mounted it.
pub fn is_mounted() -> bool {
    fs::read_dir(PATH).is_ok_and(|mut entries| entries.next().is_some())
}

/// Runs `work` where tracefs is mounted, in a thread apart. Where the host has not mounted it, that thread does, in a mount namespace of its
/// own, so that nothing is left behind.
///
/// # Errors
/// That tracefs cannot be mounted.
pub(super) fn with<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let mounted = || {
        if !is_mounted() {
            mount_privately()
                .map_err(|error| io::Error::other(format!("tracefs cannot be mounted on {PATH}: {error}")))?;
        }
        Ok(work())
    };
    confine::apart(mounted).unwrap_or_else(|panic| panic::resume_unwind(panic))
}

fn mount_privately() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tracefs"), PATH, Some("tracefs"), MsFlags::empty(), None::<&str>)
}
