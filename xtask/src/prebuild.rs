//! `cargo xtask prebuild`: renews the BPF objects that come prebuilt (`tracer-ebpf/prebuilt`), or says whether they are what their sources give.
//! Who installs by `cargo install` gets those, for want of a toolchain for the kernel side.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};
use bpf_objects::toolchain::BpfToolchain;

use crate::{bpf_toolchain, demo::cargo, step::Steps};

/// What `cargo xtask prebuild` takes.
#[derive(Default, clap::Args)]
pub(crate) struct Options {
    /// Change nothing: fail if they are not what their sources give.
    #[arg(long)]
    check: bool,
}

/// Renews them, with the toolchain that everybody can get in the very same version.
pub(crate) fn run(steps: &mut Steps, workspace: &Path, options: &Options) -> Result<()> {
    if options.check {
        return check(steps, workspace);
    }
    let toolchain = BpfToolchain::read(workspace)?;
    ensure!(
        toolchain.name == bpf_toolchain::NIGHTLY,
        "they are prebuilt with {} only, and here is {} (cargo xtask setup takes the first where rustup provides it)",
        bpf_toolchain::NIGHTLY,
        toolchain.rustc
    );
    steps.run("building the BPF objects for all processors", &mut command(workspace))
}

/// Builds them again and compares, where that can give the same bytes; compares their sources where not.
pub(crate) fn check(steps: &mut Steps, workspace: &Path) -> Result<()> {
    steps.run("comparing the prebuilt BPF objects with their sources", command(workspace).arg("--check"))
}

fn command(workspace: &Path) -> Command {
    let mut command = cargo();
    command.current_dir(workspace);
    command.args(["run", "--quiet", "--package", "bpf-objects", "--bin", "prebuild", "--"]);
    command
}
