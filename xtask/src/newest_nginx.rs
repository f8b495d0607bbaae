//! The newest nginx that Debian has, beside the machine's own: unpacked with all that it needs into a folder that the rig makes its root.

use std::{fs, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{arch::Arch, interrupt, step::Steps, vm::debian::Suite};

/// Where it is in the workspace. The rig looks there.
const FOLDER: &str = "target/newest-nginx";
/// Debian's latest suite.
const SUITE: &str = "sid";
/// Whom it can run as; no name service is asked.
const USERS: [(&str, &str); 2] = [
    ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("group", "root:x:0:\nnogroup:x:65534:\n"),
];

/// Fetches it, if it is not there. Where it cannot be had, that is reported, and its tests fail.
pub(crate) fn get(steps: &mut Steps, workspace: &Path) -> Result<()> {
    let folder = workspace.join(FOLDER);
    if folder.exists() {
        return Ok(());
    }
    match (fetch(steps, workspace, &folder), interrupt::noted()) {
        (Ok(()), _) => Ok(()),
        (Err(error), None) => {
            eprintln!("step: the newest nginx: not fetched: {error:#}");
            Ok(())
        }
        (Err(_), Some(signal)) => bail!("interrupted by {signal}"),
    }
}

fn fetch(steps: &mut Steps, workspace: &Path, folder: &Path) -> Result<()> {
    let lists = workspace.join("target/newest-nginx.apt");
    let new = folder.with_extension("new");
    for left_over in [&lists, &new] {
        if left_over.exists() {
            fs::remove_dir_all(left_over)?;
        }
    }
    Suite::open(steps, &lists, SUITE, Arch::X86_64)?.unpack(steps, &["nginx"], true, &new)?;
    // What a package that is always installed would have made.
    for name in ["bin", "sbin", "lib", "lib64"] {
        if !new.join(name).exists() && new.join("usr").join(name).is_dir() {
            symlink(Path::new("usr").join(name), new.join(name))?;
        }
    }
    for name in ["dev", "proc", "tmp", "var/log/nginx", "var/lib/nginx"] {
        fs::create_dir_all(new.join(name))?;
    }
    for (name, text) in USERS {
        fs::write(new.join("etc").join(name), text)?;
    }
    fs::remove_dir_all(&lists)?;
    fs::rename(&new, folder).with_context(|| format!("making {}", folder.display()))
}
