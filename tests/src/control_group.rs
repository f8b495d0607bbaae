//! Control groups of the test's own, named as systemd and the container runtimes name theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::process::Pid;
use crate::wait;

/// A control group, removed when dropped, with those above it that were made for it.
#[derive(Debug)]
pub struct ControlGroup {
    mount: PathBuf,
    /// Below the mount, the outermost first.
    folders: Vec<PathBuf>,
}

impl ControlGroup {
    /// Makes one in the default hierarchy (cgroup v2): `system.slice/php8.2-fpm.service`, in a folder of this test's own.
    pub fn new(path: &str) -> Result<ControlGroup> {
        ControlGroup::make(unified().context("cgroup v2 is not mounted")?, path)
    }

    /// Makes one whose tasks may run for so many microseconds of each 100 ms, wherever this machine has the CPU controller.
    pub fn with_quota(path: &str, us: u32) -> Result<ControlGroup> {
        const PERIOD_US: u32 = 100_000;
        let v1 = PathBuf::from("/sys/fs/cgroup/cpu");
        if v1.join("cpu.cfs_quota_us").exists() || v1.join("cpu.shares").exists() {
            let group = ControlGroup::make(v1, path)?;
            fs::write(group.folder().join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            fs::write(group.folder().join("cpu.cfs_quota_us"), us.to_string()).context("setting a quota")?;
            return Ok(group);
        }
        let group = ControlGroup::new(path)?;
        let above = [group.mount.as_path()].into_iter().chain(group.folders.iter().map(PathBuf::as_path));
        for folder in above.take(group.folders.len()) {
            fs::write(folder.join("cgroup.subtree_control"), "+cpu")
                .with_context(|| format!("giving out CPUs in {}", folder.display()))?;
        }
        fs::write(group.folder().join("cpu.max"), format!("{us} {PERIOD_US}")).context("setting a quota")?;
        Ok(group)
    }

    fn make(mount: PathBuf, path: &str) -> Result<ControlGroup> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let own = mount.join(format!("why502-rig-{}-{number}", std::process::id()));
        let mut group = ControlGroup { mount, folders: Vec::new() };
        let mut folder = own;
        for name in [""].into_iter().chain(path.split('/')) {
            folder = if name.is_empty() { folder } else { folder.join(name) };
            fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
            group.folders.push(folder.clone());
        }
        Ok(group)
    }

    fn folder(&self) -> &Path {
        self.folders.last().unwrap_or(&self.mount)
    }

    /// Its path, as /proc/PID/cgroup has it.
    pub fn path(&self) -> String {
        let inside = self.folder().strip_prefix(&self.mount).unwrap_or(self.folder());
        format!("/{}", inside.display())
    }

    /// The file by which a process joins it.
    pub fn procs(&self) -> PathBuf {
        self.folder().join("cgroup.procs")
    }

    /// Puts processes into it, with all that they will start.
    pub fn hold(&self, pids: impl IntoIterator<Item = Pid>) -> Result<()> {
        for pid in pids {
            fs::write(self.procs(), pid.to_string())
                .with_context(|| format!("putting {pid} into {}", self.path()))?;
        }
        Ok(())
    }
}

/// Where cgroup v2 is mounted.
fn unified() -> Option<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .find(|mount| mount.join("cgroup.controllers").exists())
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        for folder in self.folders.iter().rev() {
            // Refused for as long as a process is in it.
            let removed = wait::until_true("an empty control group", || Ok(fs::remove_dir(folder).is_ok()));
            if let Err(error) = removed {
                eprintln!("rig: {error:#}");
            }
        }
    }
}
