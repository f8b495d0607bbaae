//! A memory cgroup of the test's own, so that the kernel's out-of-memory killer has a real reason and no other victim.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::Pid;
use crate::wait;

/// A cgroup with a limit on its memory, removed when dropped.
#[derive(Debug)]
pub struct MemoryLimit(PathBuf);

impl MemoryLimit {
    /// Makes one, of the first version of cgroups or of the second, whichever this machine has mounted.
    pub fn new(bytes: u64) -> Result<MemoryLimit> {
        let name = format!("why502-rig-{}", std::process::id());
        let (parent, limit) =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
                .into_iter()
                .find(|(parent, _)| is_memory(Path::new(parent)))
                .context("no memory cgroup is mounted")?;
        let folder = (1..).map(|number| Path::new(parent).join(format!("{name}-{number}")));
        for folder in folder {
            match fs::create_dir(&folder) {
                Ok(()) => {
                    let group = MemoryLimit(folder);
                    fs::write(group.0.join(limit), bytes.to_string()).context("limiting memory")?;
                    return Ok(group);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => bail!("making {}: {error}", folder.display()),
            }
        }
        unreachable!("numbers do not end")
    }

    /// Puts a process under the limit, with all that it will start.
    pub fn hold(&self, pid: Pid) -> Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("putting {pid} under a memory limit"))
    }
}

fn is_memory(parent: &Path) -> bool {
    parent.join("memory.limit_in_bytes").exists()
        || fs::read_to_string(parent.join("cgroup.subtree_control"))
            .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "memory"))
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Refused for as long as a process is in it.
        let removed = wait::until_true("an empty memory cgroup", || Ok(fs::remove_dir(&self.0).is_ok()));
        if let Err(error) = removed {
            eprintln!("rig: {error:#}");
        }
    }
}
