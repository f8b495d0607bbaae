//! DuckDB, which the tests let read evidence: from Python's package index, into the target folder and nowhere else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::step::Steps;

const PACKAGE: &str = "duckdb==2.0.0";

/// Where the rig looks for it.
fn folder(workspace: &Path) -> PathBuf {
    workspace.join("target/duckdb")
}

/// Whether it is there.
pub(crate) fn ready(workspace: &Path) -> bool {
    folder(workspace).join("duckdb/__init__.py").is_file()
}

/// The command that installs it.
pub(crate) fn install_command(workspace: &Path) -> Command {
    let mut command = Command::new("pip3");
    command.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target"]);
    command.arg(folder(workspace)).arg(PACKAGE).env("PIP_ROOT_USER_ACTION", "ignore");
    command
}

/// Installs it.
pub(crate) fn install(steps: &mut Steps, workspace: &Path) -> Result<()> {
    steps.run("installing DuckDB into the target folder", &mut install_command(workspace))
}
