//! The emulator, and the programs that the guest's first process needs: of Debian's packages, unpacked and not installed, so that they are
//! the same wherever this runs and nothing on this machine changes for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::debian::Suite;
use crate::step::Steps;

const SUITE: &str = "trixie";
const PACKAGES: [&str; 2] = ["qemu-system-x86", "busybox-static"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The folder that they were unpacked in.
pub(crate) struct Tools(PathBuf);

impl Tools {
    /// Fetches them, if they are not there.
    pub(crate) fn get(steps: &mut Steps, vm: &Path) -> Result<Self> {
        let folder = vm.join("tools");
        if !folder.exists() {
            let new = vm.join("tools.new");
            if new.exists() {
                fs::remove_dir_all(&new)?;
            }
            Suite::open(steps, vm, SUITE)?.unpack(steps, &PACKAGES, true, &new)?;
            fs::rename(&new, &folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self(folder))
    }

    /// busybox, which needs no library.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.0.join("usr/bin/busybox")
    }

    /// The emulator, with the libraries and the firmware that it was packaged with.
    pub(crate) fn qemu(&self) -> Command {
        let libraries = self.0.join(LIBRARIES);
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(self.0.join("usr/bin/qemu-system-x86_64"));
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.0.join(firmware));
        }
        command
    }
}
