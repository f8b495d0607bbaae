//! Builds the objects from their source, with the toolchain that `cargo xtask setup` chose.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    NAMES, Objects, lean,
    toolchain::{BpfToolchain, program},
};

/// What the kernel side is compiled for; userspace is little-endian, too.
const TARGET: &str = "bpfel-unknown-none";

/// Builds them for a processor. Returns also what the compiler warned of. They are always built for release, whatever the program around them is
/// built for: the verifier would not take others. So all builds of this checkout share a folder; `own` is one for who may not write there.
///
/// # Errors
/// If they do not build.
pub fn build(
    workspace: &Path,
    toolchain: &BpfToolchain,
    arch: &str,
    own: &Path,
) -> Result<(Objects, String)> {
    let shared = BpfToolchain::folder(workspace).join("build").join(arch);
    let target = if is_writable(&shared) { &shared } else { own };
    let output = command(workspace, toolchain, arch, target)?
        .output()
        .with_context(|| format!("cargo of {} cannot be run", toolchain.name))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("the BPF side does not build: {said}");
    }
    let folder = target.join(TARGET).join("release");
    let object = |name: &str| {
        let path = folder.join(name);
        let elf = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        lean::without_debug(&elf).with_context(|| format!("{name}, as it was built"))
    };
    let [live, backlog, sockets] = NAMES.map(object);
    Ok((Objects([live?, backlog?, sockets?]), said))
}

/// `cargo xtask setup` runs as root, and who builds need not.
fn is_writable(folder: &Path) -> bool {
    let trial = || File::options().create(true).append(true).open(folder.join("writable"));
    fs::create_dir_all(folder).and_then(|()| trial()).is_ok()
}

/// The command does not take over what the user has set for other builds, nor what cargo passes to a build script that it runs.
fn command(workspace: &Path, toolchain: &BpfToolchain, arch: &str, target: &Path) -> Result<Command> {
    let mut command = program(&toolchain.name, "cargo");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PROFILE_")) {
            command.env_remove(name);
        }
    }
    for name in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        command.env_remove(name);
    }
    if toolchain.bootstrap {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    let mut flags = vec![format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2".to_owned()];
    // The same paths in each checkout: what is left of them once the object is lean is how long they are.
    for (path, name) in places(workspace, toolchain)? {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    flags.push("-Clink-arg=--btf".to_owned());
    command
        .current_dir(workspace)
        .args(["build", "--locked", "--quiet", "--release", "--package", "tracer-ebpf", "--bins"])
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("PATH", path(workspace, toolchain)?);
    Ok(command)
}

/// Where sources are, and what that is called instead.
fn places(workspace: &Path, toolchain: &BpfToolchain) -> Result<[(PathBuf, &'static str); 3]> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let home = home.context("neither CARGO_HOME nor a home folder is set")?;
    let sysroot = toolchain.sysroot().context("the BPF toolchain does not say where it is")?;
    Ok([(home, "/cargo"), (sysroot, "/rust"), (workspace.to_owned(), "/why502")])
}

/// Where the linker is found, and the compiler if no rustup has it.
fn path(workspace: &Path, toolchain: &BpfToolchain) -> Result<std::ffi::OsString> {
    let mut path: Vec<PathBuf> = vec![BpfToolchain::linker_folder(workspace)];
    if toolchain.name.starts_with('/') {
        path.push(Path::new(&toolchain.name).join("bin"));
    }
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(path).context("PATH cannot be extended")
}
