//! Debian's package, for every Debian and Ubuntu: it depends on nothing.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{DESCRIPTION, Release, SUMMARY, gzip, tree::Parts, write};
use crate::step::{Steps, output};

/// Who answers for the packages.
const MAINTAINER: &str = "why502 maintainers <maintainers@users.noreply.r-seed-9311b4e1.example>";
/// Debian's own version of the package.
const REVISION: u32 = 1;
/// What its checker finds and what is meant so.
const OVERRIDES: &str = "\
# One binary for hosts of any age and any C library, which incidents happen on.
why502: statically-linked-binary [usr/bin/why502]
why502: shared-library-lacks-prerequisites [usr/bin/why502]
# The package is handed out by the project itself: no bug of Debian's asked for it.
why502: initial-upload-closes-no-bugs [usr/share/doc/why502/changelog.Debian.gz:1]
";

/// Makes it, and has lintian look at it.
pub(crate) fn make(steps: &mut Steps, release: &Release<'_>, parts: &Parts) -> Result<()> {
    let root = release.work.join("debian");
    let version = format!("{}-{REVISION}", release.version);
    parts.put_program(&root.join("usr/bin"))?;
    parts.put_shared(&root, "usr/share/zsh/vendor-completions")?;
    // Before systemd 254 and merged folders, Debian's own packages have theirs there.
    parts.put_service(&root, "lib/systemd/system", "usr/share/doc/why502/examples")?;
    let documents = root.join("usr/share/doc/why502");
    write(&documents.join("copyright"), copyright(&parts.licence))?;
    write(&documents.join("changelog.gz"), gzip(parts.changelog.as_bytes())?)?;
    write(&documents.join("changelog.Debian.gz"), gzip(changelog(release, &version)?.as_bytes())?)?;
    write(&documents.join("third-party.txt.gz"), gzip(parts.notices.as_bytes())?)?;
    write(&root.join("usr/share/lintian/overrides/why502"), OVERRIDES)?;
    let (size, sums) = contents(&root)?;
    // What the administrator has changed stays, and dpkg asks.
    write(&root.join("DEBIAN/conffiles"), "/etc/why502.toml\n")?;
    write(&root.join("DEBIAN/control"), control(release, &version, size))?;
    write(&root.join("DEBIAN/md5sums"), sums)?;

    let package = release.folder.join(format!("why502_{version}_{}.deb", release.arch.debian()));
    let mut command = Command::new("dpkg-deb");
    // xz is what every dpkg of the last ten years reads.
    command.args(["--build", "--root-owner-group", "-Zxz", "--threads-max=1"]).arg(&root).arg(&package);
    steps.run("packing the .deb", command.env("SOURCE_DATE_EPOCH", &release.time))?;
    let mut lintian = Command::new("lintian");
    lintian.args(["--fail-on", "error", "--allow-root", "--tag-display-limit", "0"]).arg(&package);
    steps.run("checking the .deb with lintian", &mut lintian)
}

fn control(release: &Release<'_>, version: &str, size: u64) -> String {
    let arch = release.arch.debian();
    let description: String = DESCRIPTION.iter().map(|line| format!(" {line}\n")).collect();
    format!(
        "Package: why502\nVersion: {version}\nArchitecture: {arch}\nMaintainer: {MAINTAINER}\nInstalled-Size: {size}\n\
         Suggests: nginx\nSection: net\nPriority: optional\nDescription: {SUMMARY}\n{description}"
    )
}

/// Debian keeps the texts of common licences in one place, and wants them named there.
fn copyright(licence: &str) -> String {
    let text: String = licence
        .lines()
        .skip_while(|line| !line.starts_with("Permission"))
        .map(|line| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") })
        .collect();
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: why502\n\
         Comment: What others have written and is linked in, with its licences, is in\n third-party.txt.gz beside this file. \
         btf-rs among it is under LGPL-2.1-or-later:\n /usr/share/common-licenses/LGPL-2.1.\n\n\
         Files: *\nCopyright: {}\nLicense: MIT\n\nLicense: MIT\n{text}",
        licence
            .lines()
            .find_map(|line| line.strip_prefix("Copyright (c) "))
            .unwrap_or("the why502 contributors")
    )
}

fn changelog(release: &Release<'_>, version: &str) -> Result<String> {
    let date = output(
        Command::new("date").args(["--utc", "--rfc-email", "--date"]).arg(format!("@{}", release.time)),
    )?;
    Ok(format!(
        "why502 ({version}) unstable; urgency=medium\n\n  * Version {}: see changelog.gz.\n\n -- {MAINTAINER}  {}\n",
        release.version,
        date.trim()
    ))
}

/// What is installed: how many KiB, and the checksum of each file.
fn contents(root: &Path) -> Result<(u64, String)> {
    let mut files = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                files.push((entry.path().strip_prefix(root)?.to_owned(), entry.metadata()?.len()));
            }
        }
    }
    files.sort();
    let size = files.iter().map(|(_, size)| size.div_ceil(1024)).sum();
    // dpkg keeps those of configurations itself.
    let fixed = files.iter().map(|(path, _)| path).filter(|path| !path.starts_with("etc"));
    let sums = output(Command::new("md5sum").current_dir(root).arg("--").args(fixed))?;
    Ok((size, sums))
}
