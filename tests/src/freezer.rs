//! A cgroup of the test's own that is frozen.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Pid;
use crate::wait;

/// A frozen cgroup, thawed and removed when dropped.
#[derive(Debug)]
pub struct Freezer {
    folder: PathBuf,
    /// Its file, and what thaws it.
    state: (&'static str, &'static str),
    pid: Pid,
}

impl Freezer {
    /// Freezes a process, and waits until it stands still; by the first version of cgroups or by the second, whichever this machine has.
    pub fn freeze(pid: Pid) -> Result<Freezer> {
        let first = Path::new("/sys/fs/cgroup/freezer");
        let (root, file, freeze, thaw, is_frozen) = if first.is_dir() {
            (first, "freezer.state", "FROZEN", "THAWED", ("freezer.state", "FROZEN"))
        } else {
            (Path::new("/sys/fs/cgroup"), "cgroup.freeze", "1", "0", ("cgroup.events", "frozen 1"))
        };
        let folder = root.join(format!("why502-rig-freezer-{pid}"));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let freezer = Freezer { folder, state: (file, thaw), pid };
        fs::write(freezer.folder.join("cgroup.procs"), pid.to_string())?;
        fs::write(freezer.folder.join(file), freeze)?;
        wait::until_true("a frozen cgroup", || {
            let (file, line) = is_frozen;
            Ok(fs::read_to_string(freezer.folder.join(file))?.lines().any(|one| one == line))
        })?;
        Ok(freezer)
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let (file, thaw) = self.state;
        let parent = self.folder.parent().map(|parent| parent.join("cgroup.procs"));
        // A process that has ended cannot be moved, and need not be.
        let thawed = fs::write(self.folder.join(file), thaw);
        let _ = parent.map(|parent| fs::write(parent, self.pid.to_string()));
        let removed = wait::until_true("an empty cgroup", || Ok(fs::remove_dir(&self.folder).is_ok()));
        if let Err(error) = thawed.map_err(anyhow::Error::from).and(removed) {
            eprintln!("rig: {error:#}");
        }
    }
}
