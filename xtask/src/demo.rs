//! `cargo xtask demo`: builds, then lets the rig break exchanges in every way while why502 explains them.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{interrupt, step::Steps};

/// Builds why502 and the rig, and becomes the rig's demo.
pub(crate) fn run(steps: &mut Steps) -> Result<()> {
    steps.run("building why502", &mut build("tracer-user", "why502"))?;
    steps.run("building the rig", &mut build("rig", "demo"))?;
    steps.run("building the rig's faulty server", &mut build("rig", "faulty-server"))?;
    if let Some(signal) = interrupt::noted() {
        bail!("interrupted by {signal}");
    }
    let demo = built("demo")?;
    // The demo takes this process's place: Ctrl-C and every other signal reach it, and its exit status is ours.
    let error = Command::new(&demo).env("WHY502_BIN", built("why502")?).exec();
    Err(error).with_context(|| format!("{} cannot be run", demo.display()))
}

/// The command that builds a program for release.
pub(crate) fn build(package: &str, program: &str) -> Command {
    let mut command = cargo();
    command.args(["build", "--release", "--package", package, "--bin", program]);
    command
}

/// Where cargo put a program that was built for release: beside the folder this one was built into.
pub(crate) fn built(program: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("this program's own path cannot be read")?;
    let target = this.parent().and_then(Path::parent).context("this program is in no target folder")?;
    let path = target.join("release").join(program);
    if !path.is_file() {
        bail!("{} is not there: run this by `cargo xtask`", path.display());
    }
    Ok(path)
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
