//! tracefs, which numbers the tracepoints on system calls.

use std::{fs, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::failure::Failure;

const PATH: &str = "/sys/kernel/tracing";

/// Whether the host has mounted it.
pub fn is_mounted() -> bool {
    fs::read_dir(PATH).is_ok_and(|mut entries| entries.next().is_some())
}

/// Runs `work` where tracefs is mounted. Where the host has not mounted it, a thread with a mount namespace of its own
/// does, so that nothing is left behind.
///
/// # Errors
/// Those of `work`, or that tracefs cannot be mounted.
pub(super) fn with<T: Send>(work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    if is_mounted() {
        return work();
    }
    let mounted = || {
        mount_privately()
            .map_err(|error| Failure::CannotTrace(format!("tracefs cannot be mounted on {PATH}: {error}")))?;
        work()
    };
    thread::scope(|scope| scope.spawn(mounted).join()).unwrap_or_else(|_| {
        Err(Failure::Run(anyhow::anyhow!("attaching the hooks on system calls panicked")))
    })
}

fn mount_privately() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tracefs"), PATH, Some("tracefs"), MsFlags::empty(), None::<&str>)
}
