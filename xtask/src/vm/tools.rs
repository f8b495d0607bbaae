//! The emulator, and the programs that the guest's first process needs: of Debian's packages, unpacked and not installed, so that they are
//! the same wherever this runs and nothing on this machine changes for them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::debian::Suite;
use crate::{arch::Arch, step::Steps};

const SUITE: &str = "trixie";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The folder that they were unpacked in, and the architecture that is emulated.
pub(crate) struct Tools {
    folder: PathBuf,
    arch: Arch,
}

impl Tools {
    /// Fetches them, if they are not there.
    pub(crate) fn get(steps: &mut Steps, vm: &Path, arch: Arch) -> Result<Self> {
        // `qemu-user` runs a single program of the other architecture's: a test says by that what it holds.
        let (folder, packages): (_, &[&str]) = match arch {
            Arch::X86_64 => ("tools", &["qemu-system-x86", "busybox-static"]),
            Arch::Arm64 => ("tools-arm64", &["qemu-system-arm", "qemu-user", "busybox-static"]),
        };
        let folder = vm.join(folder);
        if !folder.exists() {
            let new = folder.with_added_extension("new");
            if new.exists() {
                fs::remove_dir_all(&new)?;
            }
            // These are this machine's to run.
            Suite::open(steps, vm, SUITE, Arch::X86_64)?.unpack(steps, packages, true, &new)?;
            fs::rename(&new, &folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self { folder, arch })
    }

    /// The architecture that is emulated.
    pub(crate) fn arch(&self) -> Arch {
        self.arch
    }

    /// busybox, which needs no library, for this machine.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.folder.join("usr/bin/busybox")
    }

    /// The emulator, with the libraries and the firmware that it was packaged with, and the machine that it is to be.
    pub(crate) fn qemu(&self) -> Command {
        let mut command = match self.arch {
            Arch::X86_64 => {
                let mut command = self.run("qemu-system-x86_64");
                // Without the fast string instructions, which are emulated a byte at a time: the kernel copies and clears with them what
                // it can, and half of a test's time goes into that else.
                command.args(["-machine", "q35", "-cpu", "max,erms=off,fsrm=off"]);
                command
            }
            Arch::Arm64 => {
                let mut command = self.run("qemu-system-aarch64");
                // Pointers that are authenticated by an algorithm that is easy to emulate: half of the time goes into them else.
                command.args(["-machine", "virt", "-cpu", "max,pauth-impdef=on"]);
                command
            }
        };
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.folder.join(firmware));
        }
        command
    }

    /// One program that is linked statically, whatever of the two architectures it is for.
    pub(crate) fn program(&self, path: &Path) -> Command {
        match self.arch {
            Arch::X86_64 => Command::new(path),
            Arch::Arm64 => {
                let mut command = self.run("qemu-aarch64");
                command.arg(path);
                command
            }
        }
    }

    /// One of the programs that were unpacked.
    fn run(&self, name: &str) -> Command {
        let libraries = self.folder.join(LIBRARIES);
        let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(self.folder.join("usr/bin").join(name));
        command
    }
}
