//! The package for Fedora, Red Hat and SUSE.

use std::process::Command;

use anyhow::Result;

use super::{DESCRIPTION, Release, SUMMARY, tree::Parts, write};
use crate::step::Steps;

/// rpm's own version of the package.
const REVISION: u32 = 1;
/// What rpmbuild would do to the files, and what it would say of this machine and of the hour.
const SETTINGS: [&str; 9] = [
    "__os_install_post %{nil}",
    "debug_package %{nil}",
    "_build_id_links none",
    "_buildhost why502",
    "_binary_payload w9.gzdio",
    "use_source_date_epoch_as_buildtime 1",
    "source_date_epoch_from_changelog 0",
    "clamp_mtime_to_source_date_epoch 1",
    "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
];

/// Makes it.
pub(crate) fn make(steps: &mut Steps, release: &Release<'_>, parts: &Parts) -> Result<()> {
    let root = release.work.join("red-hat");
    parts.put_program(&root.join("usr/bin"))?;
    parts.put_shared(&root, "usr/share/zsh/site-functions")?;
    parts.put_service(&root, "usr/lib/systemd/system", "usr/share/doc/why502/examples")?;
    for (name, text) in [("LICENSE", &parts.licence), ("third-party.txt", &parts.notices)] {
        write(&root.join("usr/share/licenses/why502").join(name), text)?;
    }
    write(&root.join("usr/share/doc/why502/CHANGELOG.md"), &parts.changelog)?;
    let specification = release.work.join("why502.spec");
    write(&specification, self::specification(&release.version))?;

    let mut command = Command::new("rpmbuild");
    let target = format!("{}-linux", release.arch.red_hat());
    command.args(["-bb", "--quiet", "--target", &target]).env("SOURCE_DATE_EPOCH", &release.time);
    let top = release.work.join("rpmbuild");
    let places = [("_topdir", &top), ("_rpmdir", &release.folder), ("why502_root", &root)];
    for setting in SETTINGS
        .map(str::to_owned)
        .into_iter()
        .chain(places.map(|(name, path)| format!("{name} {}", path.display())))
    {
        command.arg("--define").arg(setting);
    }
    steps.run("packing the .rpm", command.arg(&specification))
}

fn specification(version: &str) -> String {
    format!(
        "Name: why502\nVersion: {version}\nRelease: {REVISION}\nSummary: {SUMMARY}\nLicense: MIT AND LGPL-2.1-or-later\n\
         AutoReqProv: no\n\n%description\n{}\n\n%install\ncp -a %{{why502_root}}/. %{{buildroot}}\n\n%files\n\
         %defattr(-,root,root,-)\n/usr/bin/why502\n/usr/lib/systemd/system/why502.service\n\
         %config(noreplace) /etc/why502.toml\n%license /usr/share/licenses/why502\n%doc /usr/share/doc/why502\n\
         /usr/share/man/man1/why502*\n/usr/share/bash-completion/completions/why502\n\
         /usr/share/zsh/site-functions/_why502\n/usr/share/fish/vendor_completions.d/why502.fish\n",
        DESCRIPTION.join("\n")
    )
}
