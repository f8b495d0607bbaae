//! What a guest of arm64's runs: Debian's packages for it, unpacked and not installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, debian::Suite};
use crate::{arch::Arch, step::Steps};

/// The last suite whose packages unpack into a whole root: later ones count on links that an installation makes.
const SUITE: &str = "bookworm";
/// What the rig runs there, and what else a root has.
const PACKAGES: [&str; 18] = [
    "base-passwd",
    "busybox-static",
    "curl",
    "dash",
    "iproute2",
    "libnginx-mod-http-lua",
    "libnginx-mod-stream",
    "mount",
    "netbase",
    "nftables",
    "nginx",
    "openssl",
    "php-fpm",
    "procps",
    "strace",
    "tzdata",
    "util-linux",
    "zstd",
];
/// Folders of which nothing is taken: what people read, other languages, and what is for an installation.
const BALLAST: [&str; 18] = [
    "etc/apparmor.d",
    "etc/init.d",
    "lib/systemd",
    "usr/include",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/lib/aarch64-linux-gnu/perl",
    "usr/lib/aarch64-linux-gnu/perl-base",
    "usr/lib/systemd",
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl",
    "usr/share/perl5",
    "usr/share/zoneinfo/posix",
    "usr/share/zoneinfo/right",
];
/// Who there is: an installation would copy it.
const USERS: [(&str, &str); 2] = [
    ("usr/share/base-passwd/passwd.master", "/etc/passwd"),
    ("usr/share/base-passwd/group.master", "/etc/group"),
];

/// The folder that they were unpacked in.
pub(crate) struct Userland(PathBuf);

impl Userland {
    /// Fetches them, if they are not there.
    pub(crate) fn get(steps: &mut Steps, vm: &Path) -> Result<Self> {
        let folder = vm.join("userland-arm64");
        if !folder.exists() {
            let new = folder.with_added_extension("new");
            if new.exists() {
                fs::remove_dir_all(&new)?;
            }
            Suite::open(steps, vm, SUITE, Arch::Arm64)?.unpack(steps, &PACKAGES, true, &new)?;
            fs::rename(&new, &folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(Self(folder))
    }

    /// busybox, for the guest.
    pub(crate) fn busybox(&self) -> PathBuf {
        self.0.join("bin/busybox")
    }

    /// Puts all of it where an installation would.
    pub(crate) fn put(&self, archive: &mut Archive) -> Result<()> {
        for (from, to) in USERS {
            archive.file(Path::new(to), &self.0.join(from), 0o644)?;
        }
        self.put_folder(archive, Path::new(""))
    }

    fn put_folder(&self, archive: &mut Archive, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(self.0.join(folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if BALLAST.iter().any(|ballast| path == Path::new(ballast)) {
                continue;
            } else if kind.is_dir() {
                archive.folder(&path)?;
                self.put_folder(archive, &path)?;
            } else if kind.is_symlink() {
                archive.link(&path, &fs::read_link(entry.path())?)?;
            } else {
                archive.file(&path, &entry.path(), entry.metadata()?.permissions().mode() & 0o7777)?;
            }
        }
        Ok(())
    }
}
