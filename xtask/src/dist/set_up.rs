//! What only `cargo xtask dist` needs, beside the BPF toolchain.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::{
    arch::Arch,
    bpf_toolchain, packages,
    step::{Steps, output, shown},
};

/// Installs what is missing; the rig's servers are not among it.
pub(crate) fn set_up(steps: &mut Steps, workspace: &Path) -> Result<()> {
    install(steps, workspace, packages::missing_for_dist(), &Arch::ALL)
}

/// The same of what only the static binary for an architecture is built with.
pub(super) fn set_up_program(steps: &mut Steps, workspace: &Path, arch: Arch) -> Result<()> {
    install(steps, workspace, packages::missing_for_static(arch), &[arch])
}

fn install(steps: &mut Steps, workspace: &Path, missing: Vec<&'static str>, built: &[Arch]) -> Result<()> {
    let toolchain = !bpf_toolchain::ready(workspace);
    if Uid::effective().is_root() {
        packages::clear_leftovers()?;
    } else if !missing.is_empty() || toolchain {
        bail!(
            "`cargo xtask dist` must run as root once, to install what is missing: {}",
            if toolchain {
                [missing, vec!["the BPF toolchain"]].concat().join(", ")
            } else {
                missing.join(", ")
            }
        );
    }
    if !missing.is_empty() {
        if !packages::apt() {
            bail!(
                "this system has no apt: install what Debian calls {} and run this again",
                missing.join(", ")
            );
        }
        packages::install(steps, &missing)?;
    }
    if toolchain {
        bpf_toolchain::install(steps, workspace)?;
    }
    built.iter().try_for_each(|arch| add_target(steps, arch.target()))
}

fn add_target(steps: &mut Steps, target: &str) -> Result<()> {
    if has(target)? {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add", target]);
    if packages::find("rustup").is_none() {
        bail!(
            "this cargo has no {target}: install the standard library for it, as rustup does by `{}`",
            shown(&add)
        );
    }
    steps.run(&format!("installing {target} by rustup"), &mut add)
}

/// Whether the compiler has the target's standard library.
fn has(target: &str) -> Result<bool> {
    let folder = output(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
    Ok(Path::new(folder.trim()).is_dir())
}
