//! The archive for any Linux: the program, and what a package would install.

use std::process::Command;

use anyhow::Result;

use super::{Release, tar, tree::Parts, write};
use crate::step::Steps;

/// Makes it.
pub(crate) fn make(steps: &mut Steps, release: &Release<'_>, parts: &Parts) -> Result<()> {
    let name = release.name();
    let folder = release.work.join(&name);
    parts.put_program(&folder)?;
    for (name, page) in &parts.pages {
        write(&folder.join("man").join(name), page)?;
    }
    for (shell, text) in &parts.completions {
        write(&folder.join("completions").join(shell.file()), text)?;
    }
    parts.put_service(&folder.join("service"), "systemd", "prometheus")?;
    write(&folder.join("LICENSE"), &parts.licence)?;
    write(&folder.join("CHANGELOG.md"), &parts.changelog)?;
    write(&folder.join("third-party.txt"), &parts.notices)?;
    let whole = release.folder.join(format!("{name}.tar"));
    let mut command = tar(release, &release.work, &[&name]);
    steps.run("packing the archive", command.arg("--file").arg(&whole))?;
    steps.run("compressing the archive", Command::new("gzip").args(["--no-name", "--best"]).arg(&whole))
}
