//! Debian's kernels for virtual machines: their images, and what of their modules a network can want.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{cpio::Archive, debian::Suite, files, tools::Tools};
use crate::{
    arch::Arch,
    step::{Steps, output},
};

/// A kernel, by its version, and the suite that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// `6.12`
    pub(crate) name: &'static str,
    suite: &'static str,
    /// What can stand in for its best hooks, each as `--hooks-only` takes it.
    fallbacks: &'static [&'static str],
}

/// No fentry, as where the kernel was built without BPF trampolines.
const KPROBES: &str = "raw_tp,kprobe";
/// No functions at all: needs `sock_send_length`, since 6.3.
pub(super) const TRACEPOINTS: &str = "raw_tp,syscall";

/// All that there are.
pub(crate) const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye", fallbacks: &[KPROBES] },
    Kernel { name: "6.1", suite: "bookworm", fallbacks: &[KPROBES] },
    Kernel { name: "6.12", suite: "trixie", fallbacks: &[KPROBES, TRACEPOINTS] },
    Kernel { name: "7.2", suite: "sid", fallbacks: &[KPROBES, TRACEPOINTS] },
];

/// Those of arm64's: the last one without BPF trampolines on functions there, whose best hooks are kprobes, and one with them.
pub(crate) const ARM64: [Kernel; 2] = [
    Kernel { name: "6.1", suite: "bookworm", fallbacks: &[] },
    Kernel { name: "6.12", suite: "trixie", fallbacks: &[KPROBES, TRACEPOINTS] },
];

/// The flavour for virtual machines: the smallest there is.
fn flavour(arch: Arch) -> String {
    format!("-cloud-{}", arch.debian())
}
/// The modules that are taken along; what they need outside of these folders is built in.
const MODULES: [&str; 4] = ["kernel/net", "kernel/lib", "kernel/crypto", "kernel/drivers/net"];

/// A kernel that can be booted.
pub(crate) struct Image {
    /// Its version.
    pub(crate) name: &'static str,
    /// What it runs on.
    pub(crate) arch: Arch,
    /// The compressed image.
    pub(crate) vmlinuz: PathBuf,
    /// Its modules, as an archive to unpack over the root.
    pub(crate) modules: PathBuf,
    /// What can stand in for its best hooks.
    pub(crate) fallbacks: &'static [&'static str],
}

/// Finds a kernel by its version.
pub(crate) fn parse(name: &str) -> Result<Kernel, String> {
    KERNELS.into_iter().find(|kernel| kernel.name == name).ok_or_else(|| {
        let names: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        format!("the kernels are {}", names.join(", "))
    })
}

impl Kernel {
    /// Fetches it, if it is not there.
    pub(crate) fn get(self, steps: &mut Steps, vm: &Path, tools: &Tools) -> Result<Image> {
        let arch = tools.arch();
        let folder = match arch {
            Arch::X86_64 => vm.join("kernels").join(self.name),
            Arch::Arm64 => vm.join("kernels").join(format!("{}-arm64", self.name)),
        };
        if !folder.exists() {
            let new = folder.with_added_extension("new");
            let unpacked = new.join("unpacked");
            if new.exists() {
                fs::remove_dir_all(&new)?;
            }
            let suite = Suite::open(steps, vm, self.suite, arch)?;
            let (release, packages) = self.packages(&suite, &flavour(arch))?;
            suite.unpack(
                steps,
                &packages.iter().map(String::as_str).collect::<Vec<_>>(),
                false,
                &unpacked,
            )?;
            image(&unpacked, &release, &new.join("vmlinuz"))?;
            modules(&unpacked, &release, tools, &new.join("modules.cpio"))?;
            fs::remove_dir_all(&unpacked)?;
            fs::rename(&new, &folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let (vmlinuz, modules) = (folder.join("vmlinuz"), folder.join("modules.cpio"));
        Ok(Image { name: self.name, arch, vmlinuz, modules, fallbacks: self.fallbacks })
    }

    /// The release (`6.12.107+deb13-cloud-amd64`) and the packages that it comes in.
    fn packages(self, suite: &Suite, flavour: &str) -> Result<(String, Vec<String>)> {
        let names = suite.names("linux-image-")?;
        let mut releases: Vec<&str> =
            names.iter().filter_map(|name| name.strip_prefix("linux-image-")).collect();
        releases.retain(|release| release.ends_with(flavour) && release.starts_with(char::is_numeric));
        releases.sort_by_key(|release| numbers(release));
        for release in releases.iter().rev().filter(|release| is_of(release, self.name)) {
            let Some(package) = suite.package(&format!("linux-image-{release}")) else { continue };
            // Later ones keep the image, or the modules, in packages of their own.
            let parts = package.depends.into_iter().filter(|name| name.ends_with(release));
            return Ok(((*release).to_owned(), [package.name].into_iter().chain(parts).collect()));
        }
        match releases.last() {
            Some(other) => bail!("Debian {} has no kernel {}, but {other}", self.suite, self.name),
            None => bail!("Debian {} has no kernel for virtual machines", self.suite),
        }
    }
}

/// Whether `6.12.107+deb13-cloud-amd64` is of `6.12`.
fn is_of(release: &str, name: &str) -> bool {
    release.strip_prefix(name).is_some_and(|rest| !rest.starts_with(char::is_numeric))
}

/// The numbers in a version, which compare as the versions do.
fn numbers(release: &str) -> Vec<u32> {
    release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Takes the kernel's image out of the unpacked packages.
fn image(unpacked: &Path, release: &str, to: &Path) -> Result<()> {
    let places = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let found = places.iter().map(|place| unpacked.join(place)).find(|path| path.is_file());
    let found = found.with_context(|| format!("the packages of {release} have no image"))?;
    fs::rename(&found, to).with_context(|| format!("making {}", to.display()))
}

/// Makes an archive of the modules, uncompressed and with the lists that modprobe reads.
fn modules(unpacked: &Path, release: &str, tools: &Tools, to: &Path) -> Result<()> {
    let base = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place));
    let base = base.iter().find(|base| base.join(release).is_dir());
    let from = base.with_context(|| format!("the packages of {release} have no modules"))?.join(release);
    // depmod wants them there.
    let staged = unpacked.join("staged");
    let stage = staged.join("lib/modules").join(release);
    fs::create_dir_all(&stage)?;
    for entry in fs::read_dir(&from)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|name| name.as_encoded_bytes().starts_with(b"modules.")) {
            fs::rename(&path, stage.join(name))?;
        }
    }
    for folder in MODULES.iter().filter(|folder| from.join(folder).is_dir()) {
        let to = stage.join(folder);
        fs::create_dir_all(to.parent().unwrap_or(&stage))?;
        fs::rename(from.join(folder), to)?;
    }
    // Of the drivers only those that no hardware is needed for.
    for entry in fs::read_dir(stage.join("kernel/drivers/net"))? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        }
    }

    let compressed: Vec<_> =
        files(&stage)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "xz")).collect();
    if !compressed.is_empty() {
        output(Command::new(tools.busybox()).arg("unxz").args(compressed))?;
    }
    output(Command::new(tools.busybox()).arg("depmod").arg("-b").arg(&staged).arg(release))?;

    let mut archive = Archive::create(to)?;
    for file in files(&stage)? {
        archive.file(file.strip_prefix(&staged)?, &file, 0o644)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_version() {
        assert_eq!(parse("6.12"), Ok(KERNELS[2]));
        assert!(parse("6.13").is_err());
        assert!(is_of("6.1.0-50-cloud-amd64", "6.1") && is_of("7.2+deb14-cloud-amd64", "7.2"));
        assert!(!is_of("6.12.107+deb13-cloud-amd64", "6.1"));
    }

    #[test]
    fn later_releases_compare_greater() {
        assert!(numbers("5.10.0-32-cloud-amd64") > numbers("5.10.0-9-cloud-amd64"));
        assert!(numbers("6.12.107+deb13-cloud-amd64") > numbers("6.12.63+deb13-cloud-amd64"));
    }
}
