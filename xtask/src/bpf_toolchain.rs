//! The toolchain of the BPF side: one nightly where rustup can provide it with rust-src, else Debian's packages; and a bpf-linker that
//! is linked against the very libLLVM that this toolchain's rustc uses, so that the two cannot disagree.
//!
//! None is taken on faith: rustup holds each part of a dated nightly against the hash in that day's manifest, and what came of it must
//! be the commit that is named here; apt takes what Debian's keys have signed; cargo holds bpf-linker and all that it is built of
//! against the hashes of its index and of the lock file that is published with it.

use std::{
    env, fs,
    ops::RangeInclusive,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use bpf_objects::toolchain::{BpfToolchain, program};
use nix::unistd::Uid;

use crate::{
    packages,
    step::{Outcome, Steps, shown},
};

/// What rustup is asked for: a nightly whose LLVM bpf-linker knows.
pub(crate) const NIGHTLY: &str = "nightly-2026-03-01";
/// How it must call itself.
const NIGHTLY_RUSTC: &str = "rustc 1.96.0-nightly (38c0de8dc 2026-02-28)";
/// Where rustup provides none, for example because only package registries can be reached: rustc, cargo and the source of `core`.
const DEBIAN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// Under which these packages install.
const DEBIAN_PREFIX: &str = "/usr";
/// The linker's version, and the LLVM versions for which it has a feature.
const LINKER: &str = "0.13.0";
const LINKER_LLVM: RangeInclusive<u32> = 21..=23;
/// How long rustup may take before there is another way.
const RUSTUP_LIMIT: Duration = Duration::from_secs(240);

/// Whether the recorded toolchain is there, unchanged, and its bpf-linker runs.
pub(crate) fn ready(workspace: &Path) -> bool {
    BpfToolchain::read(workspace).is_ok_and(|toolchain| toolchain.is_ready(workspace))
        && linker_runs(workspace)
}

fn linker_runs(workspace: &Path) -> bool {
    BpfToolchain::linker_now(workspace).is_some_and(|version| version.ends_with(LINKER))
}

/// Installs it unless it is there.
pub(crate) fn set_up(steps: &mut Steps, workspace: &Path) -> Result<()> {
    if ready(workspace) {
        return Ok(());
    }
    ensure!(
        Uid::effective().is_root(),
        "the toolchain for the BPF side is installed by root, once: run `cargo xtask setup`"
    );
    install(steps, workspace)
}

/// Installs what is missing and records the choice.
pub(crate) fn install(steps: &mut Steps, workspace: &Path) -> Result<()> {
    let record = BpfToolchain::path(workspace);
    // Without a record nothing is built: a half-made linker is never used.
    if record.exists() {
        fs::remove_file(&record).with_context(|| format!("{} cannot be removed", record.display()))?;
    }
    let Found { toolchain, llvm, libllvm } = choose(steps, workspace)?;
    eprintln!("step: the BPF side is built with {} ({}, LLVM {llvm})", toolchain.name, toolchain.rustc);

    let prefix = llvm_prefix(workspace);
    link_llvm(&prefix.join("lib"), &libllvm)?;
    let what = format!("building bpf-linker {LINKER} for LLVM {llvm}");
    steps.run(&what, &mut linker_command(workspace, &prefix, &llvm.to_string()))?;
    if !linker_runs(workspace) {
        bail!(
            "bpf-linker was built but does not run: try {}/bpf-linker",
            BpfToolchain::linker_folder(workspace).display()
        );
    }
    fs::write(&record, toolchain.to_string())
        .with_context(|| format!("{} cannot be written", record.display()))
}

/// What to do by hand where this program cannot, one line each.
pub(crate) fn by_hand(workspace: &Path) -> Vec<String> {
    let linker = linker_command(workspace, &llvm_prefix(workspace), "N");
    let mut lines = vec![shown(&rustup_command())];
    if packages::apt() {
        let debian = shown(&packages::install_command(&DEBIAN));
        lines.push(format!("  or, where rustup cannot provide that: {debian}"));
    } else {
        lines.push(
            "  or, where rustup cannot provide that: rustc, cargo and the source of core under /usr"
                .to_owned(),
        );
    }
    lines.push(
        "`cargo xtask setup` then builds the linker, where N is the LLVM of that toolchain:".to_owned(),
    );
    lines.push(format!("  {}", shown(&linker)));
    lines
}

fn choose(steps: &mut Steps, workspace: &Path) -> Result<Found> {
    let mut tried = Vec::new();
    if packages::find("rustup").is_some() {
        if let Some(found) = inspect(NIGHTLY) {
            return Ok(found);
        }
        let what = format!("installing {NIGHTLY} with rust-src by rustup");
        match steps.attempt(&what, &mut rustup_command(), RUSTUP_LIMIT)? {
            Outcome::Done => {
                tried.push(format!("{NIGHTLY} is not {NIGHTLY_RUSTC}, or has no usable rust-src or LLVM"));
            }
            Outcome::Failed(how) => {
                eprintln!("step: rustup cannot provide {NIGHTLY} here ({how}): looking elsewhere");
                tried.push(format!("rustup cannot provide {NIGHTLY} ({how})"));
            }
        }
        if let Some(found) = inspect(NIGHTLY) {
            return Ok(found);
        }
    } else {
        tried.push("rustup is not installed".to_owned());
    }
    if let Some(found) = inspect(DEBIAN_PREFIX) {
        return Ok(found);
    }
    if packages::apt() {
        match packages::install(steps, &DEBIAN) {
            Ok(()) => tried.push(format!("{}'s LLVM is none of {LINKER_LLVM:?}", DEBIAN[0])),
            Err(error) if crate::interrupt::noted().is_some() => return Err(error),
            Err(error) => tried.push(format!("{error:#}")),
        }
        if let Some(found) = inspect(DEBIAN_PREFIX) {
            return Ok(found);
        }
    }
    bail!(
        "there is no toolchain for the BPF side ({}): install one by hand and run this again:\n  {}",
        tried.join("; "),
        by_hand(workspace).join("\n  ")
    )
}

/// A toolchain that will do.
struct Found {
    toolchain: BpfToolchain,
    llvm: u32,
    libllvm: LibLlvm,
}

/// The shared library that rustc loads.
#[derive(Debug, PartialEq, Eq)]
struct LibLlvm {
    soname: String,
    path: PathBuf,
}

/// Looks whether a toolchain is there, has cargo and the source of `core`, and uses an LLVM that bpf-linker knows.
fn inspect(name: &str) -> Option<Found> {
    let ask = |argument: &[&str]| {
        let output = program(name, "rustc").args(argument).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then_some(text)
    };
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
    if !sysroot.join("bin/cargo").exists()
        || !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists()
    {
        return None;
    }
    let version = ask(&["-vV"])?;
    let llvm = llvm_major(&version).filter(|llvm| LINKER_LLVM.contains(llvm))?;

    let loaded =
        Command::new("ldd").arg(sysroot.join("bin/rustc")).env_remove("LD_LIBRARY_PATH").output().ok()?;
    let libllvm = libllvm(&String::from_utf8(loaded.stdout).ok()?)?;
    let rustc = version.lines().next().filter(|rustc| name != NIGHTLY || *rustc == NIGHTLY_RUSTC)?.to_owned();
    let bootstrap = !rustc.contains("-nightly");
    Some(Found { toolchain: BpfToolchain { name: name.to_owned(), rustc, bootstrap }, llvm, libllvm })
}

/// The LLVM that `rustc -vV` names.
fn llvm_major(version: &str) -> Option<u32> {
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

/// The libLLVM in what `ldd` says about rustc.
fn libllvm(loaded: &str) -> Option<LibLlvm> {
    let line = loaded.lines().map(str::trim_start).find(|line| line.starts_with("libLLVM"))?;
    let (soname, rest) = line.split_once(" => ")?;
    let (path, _address) = rest.split_once(" (")?;
    Some(LibLlvm { soname: soname.to_owned(), path: Path::new(path).canonicalize().ok()? })
}

fn llvm_prefix(workspace: &Path) -> PathBuf {
    BpfToolchain::folder(workspace).join("llvm")
}

/// Makes a folder in which the linker of bpf-linker, and later the loader, finds this libLLVM and no other: by the name that `-lLLVM`
/// looks for, and by its own. The development packages of LLVM are not needed.
fn link_llvm(folder: &Path, LibLlvm { soname, path }: &LibLlvm) -> Result<()> {
    let make = || {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        symlink(path, folder.join("libLLVM.so"))?;
        symlink(path, folder.join(soname))
    };
    make().with_context(|| format!("{} cannot be made", folder.display()))
}

fn rustup_command() -> Command {
    let mut command = Command::new("rustup");
    command.args([
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ]);
    command
}

/// Builds bpf-linker under a root of the project's own: what else is called so on this machine is neither used nor replaced.
fn linker_command(workspace: &Path, llvm_prefix: &Path, llvm: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .arg("--root")
        .arg(BpfToolchain::folder(workspace))
        .env("LLVM_PREFIX", llvm_prefix)
        // Its debug information would cost minutes on a small machine.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env_remove("LD_LIBRARY_PATH");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_toolchain_is_read_from_its_version() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(text), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0"), None);
    }

    #[test]
    fn the_record_reads_back_as_written() {
        let toolchain = BpfToolchain {
            name: "/usr".to_owned(),
            rustc: "rustc 1.96.0 (ac68faa20 2026-05-25) (built = here)".to_owned(),
            bootstrap: true,
        };
        assert_eq!(toolchain.to_string().parse(), Ok(toolchain));
        assert!("name=x\nrustc=y\n".parse::<BpfToolchain>().is_err());
    }

    #[test]
    fn libllvm_is_the_one_that_rustc_loads() -> Result<()> {
        let folder = env::temp_dir().canonicalize()?;
        let file = folder.join(format!("libLLVM.so.22.1-{}", std::process::id()));
        fs::write(&file, "")?;
        let text =
            format!("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\tlibLLVM.so.22.1 => {} (0x2)\n", file.display());
        assert_eq!(
            libllvm(&text),
            Some(LibLlvm { soname: "libLLVM.so.22.1".to_owned(), path: file.clone() })
        );
        assert_eq!(libllvm("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"), None);
        fs::remove_file(file)?;
        Ok(())
    }
}
