//! Packages of any suite of Debian's archive, fetched by apt and unpacked in folders of the project's own. The machine's apt says where the
//! mirror is and how to reach it; its sources, its lists and its packages stay as they are. What is fetched is what Debian's keys have
//! signed, or nothing: an apt that knows no settings of the machine's accepts no other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    arch::Arch,
    packages,
    step::{Outcome, Steps, output},
};

/// What signs every suite.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long fetching may take before it counts as impossible.
const LIMIT: Duration = Duration::from_secs(600);
/// The settings of the machine's apt that say how to reach a mirror: proxies and the like.
const REACH: [&str; 5] =
    ["Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::ForceIP", "Acquire::Check-"];

/// A suite, its lists renewed.
pub(crate) struct Suite {
    name: &'static str,
    arch: Arch,
    folder: PathBuf,
}

/// A package as a suite has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// The names of the packages that it needs, of alternatives the first.
    pub(crate) depends: Vec<String>,
}

impl Suite {
    /// Renews the lists of a suite's packages for an architecture, in a folder under `vm`.
    pub(crate) fn open(steps: &mut Steps, vm: &Path, name: &'static str, arch: Arch) -> Result<Self> {
        if !packages::apt() {
            bail!("this system has no apt");
        }
        if !Path::new(KEYRING).exists() {
            bail!("Debian's keys are not in {KEYRING}: install debian-archive-keyring");
        }
        let mirror = mirror(&output(Command::new("apt-get").args(["update", "--print-uris"]))?)
            .context("the sources of this machine's apt name no mirror of Debian")?;
        let folder = vm.join("apt").join(format!("{name}-{}", arch.debian()));
        let suite = Self { name, arch, folder };
        suite.configure(&mirror).with_context(|| format!("{} cannot be written", suite.folder.display()))?;
        suite.attempt(
            steps,
            &format!("listing the packages of Debian {name} for {}", arch.debian()),
            suite.apt("apt-get").arg("update"),
        )?;
        Ok(suite)
    }

    fn configure(&self, mirror: &str) -> Result<()> {
        // Twice the same is not needed: the lists fit whatever mirror they come from.
        for empty in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(self.folder.join(empty))?;
        }
        let Self { name, arch, folder } = self;
        let arch = arch.debian();
        fs::write(
            folder.join("sources.list"),
            format!("deb [arch={arch} signed-by={KEYRING}] {mirror} {name} main\n"),
        )?;
        // Nothing is installed, as far as this apt knows: so it fetches all that a package needs.
        fs::write(folder.join("status"), "")?;
        let folder = folder.display();
        let machine = output(Command::new("apt-config").arg("dump"))?;
        let reach = machine.lines().filter(|line| REACH.iter().any(|start| line.starts_with(start)));
        let reach: String = reach.map(|line| format!("{line}\n")).collect();
        fs::write(
            self.folder.join("apt.conf"),
            format!(
                "APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\nDir::Etc::main \"/dev/null\";\nDir::Etc::parts \"{folder}/parts\";\n\
                 Dir::Etc::sourcelist \"{folder}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
                 Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"{folder}/parts\";\n\
                 Dir::State::lists \"{folder}/lists\";\nDir::State::status \"{folder}/status\";\n\
                 Dir::State::extended_states \"{folder}/extended\";\nDir::Cache \"{folder}/cache\";\n\
                 Acquire::Languages \"none\";\nAPT::Update::Error-Mode \"any\";\n\
                 APT::Get::AllowUnauthenticated \"false\";Acquire::AllowInsecureRepositories \"false\";\nDebug::NoLocking \"true\";\n{reach}"
            ),
        )?;
        Ok(())
    }

    /// A program of apt's that knows this suite and nothing else.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn attempt(&self, steps: &mut Steps, what: &str, command: &mut Command) -> Result<()> {
        match steps.attempt(what, command, LIMIT)? {
            Outcome::Done => Ok(()),
            Outcome::Failed(how) => bail!("{what} failed ({how})"),
        }
    }

    /// The names of all packages that begin so.
    pub(crate) fn names(&self, beginning: &str) -> Result<Vec<String>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", beginning]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Looks a package up; there is none if only others mention its name.
    pub(crate) fn package(&self, name: &str) -> Option<Package> {
        let shown = output(self.apt("apt-cache").args(["show", "--no-all-versions", name])).ok()?;
        package(&shown)
    }

    /// Fetches packages, and if asked for all that they need, and unpacks them under `root`.
    pub(crate) fn unpack(
        &self,
        steps: &mut Steps,
        names: &[&str],
        with_what_they_need: bool,
        root: &Path,
    ) -> Result<()> {
        let archives = self.folder.join("cache/archives");
        let clear = || -> Result<()> {
            fs::remove_dir_all(&archives)?;
            Ok(fs::create_dir_all(archives.join("partial"))?)
        };
        clear()?;
        let mut fetch = self.apt("apt-get");
        if with_what_they_need {
            fetch.args(["install", "--yes", "--no-install-recommends", "--download-only"]);
        } else {
            fetch.arg("download").current_dir(&archives);
        }
        let what = format!("fetching {} from Debian {}", names.join(", "), self.name);
        self.attempt(steps, &what, fetch.args(names))?;

        fs::create_dir_all(root)?;
        for entry in fs::read_dir(&archives)? {
            let archive = entry?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                output(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(root))?;
            }
        }
        clear()
    }
}

/// The mirror of Debian among what `apt-get update --print-uris` prints: `'http://mirror/debian/dists/bookworm/InRelease' ...`.
fn mirror(uris: &str) -> Option<String> {
    uris.lines().find_map(|line| {
        let (mirror, _suite) = line.strip_prefix('\'')?.split_once("/dists/")?;
        // Not debian-security, which has updates only, nor a derivative's archive.
        mirror.ends_with("/debian").then(|| mirror.to_owned())
    })
}

/// What `apt-cache show` says.
fn package(shown: &str) -> Option<Package> {
    let field = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let depends = field("Depends").unwrap_or_default().split(", ");
    Some(Package {
        name: field("Package")?.to_owned(),
        depends: depends.filter_map(|one| Some(one.split_whitespace().next()?.to_owned())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_machines_own() {
        let uris = "'http://mirror.test/debian-security/dists/bookworm-security/InRelease' a 0 \n\
                    'http://mirror.test/debian/dists/bookworm/InRelease' b 0 \n";
        assert_eq!(mirror(uris).as_deref(), Some("http://mirror.test/debian"));
        assert_eq!(mirror("'http://mirror.test/ubuntu/dists/noble/InRelease' a 0 \n"), None);
    }

    #[test]
    fn a_package_is_read_from_what_apt_shows() {
        let shown = "Package: linux-image-7.2\nVersion: 7.2.13-1\nDepends: dracut | initramfs-tools (>= 1), linux-binary-7.2 (= 7.2.13-1)\n";
        assert_eq!(
            package(shown),
            Some(Package {
                name: "linux-image-7.2".to_owned(),
                depends: vec!["dracut".to_owned(), "linux-binary-7.2".to_owned()],
            })
        );
        assert_eq!(package("N: nothing\n"), None);
    }
}
