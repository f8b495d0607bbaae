//! Builds the BPF object with the toolchain that `cargo xtask setup` chose, for the program to include from `OUT_DIR/why502-bpf.zst`.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

mod lean;
mod origin;
#[path = "../../xtask/src/record.rs"]
mod record;

use record::BpfToolchain;
use sha2::{Digest as _, Sha256};

/// How hard to compress them: a fraction of a second, and a twelfth of the size.
const LEVEL: i32 = 19;

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
    }
}

fn build() -> Result<()> {
    let workspace = workspace()?;
    println!("cargo::rerun-if-changed={}", BpfToolchain::path(&workspace).display());
    // They give the inner build its profile and its versions.
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }

    let Ok(toolchain) = BpfToolchain::read(&workspace) else {
        bail!("there is no toolchain for the BPF side yet: run `cargo xtask setup` once as root");
    };
    if toolchain.rustc_now().as_ref() != Some(&toolchain.rustc) {
        bail!(
            "the BPF toolchain `{}` is no longer {}: run `cargo xtask setup` again as root",
            toolchain.name,
            toolchain.rustc
        );
    }

    let mut path = vec![BpfToolchain::linker_folder(&workspace)];
    if toolchain.name.starts_with('/') {
        path.push(Path::new(&toolchain.name).join("bin"));
    }
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    set("PATH", env::join_paths(path).context("PATH cannot be extended")?);
    if toolchain.bootstrap {
        set("RUSTC_BOOTSTRAP", "1");
    }
    // aya-build passes on every line of the inner cargo as a warning: let it print only what is one.
    set("CARGO_TERM_QUIET", "true");

    let root = workspace.join("tracer-ebpf");
    let root_dir = root.to_str().context("the path of this checkout is not UTF-8")?;
    let package = Package { name: "tracer-ebpf", root_dir, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(&toolchain.name))
        .context("the BPF side does not build")?;
    let folder = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let mut objects = Sha256::new();
    for object in ["why502-bpf", "why502-backlog-bpf", "why502-sockets-bpf"] {
        let path = folder.join(object);
        let elf = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let lean = lean::without_debug(&elf).with_context(|| format!("{object}, as it was built"))?;
        let path = path.with_added_extension("zst");
        let packed = zstd::encode_all(&lean[..], LEVEL).context("it cannot be compressed")?;
        fs::write(&path, packed).with_context(|| format!("{} cannot be written", path.display()))?;
        objects.update(&lean);
    }
    let hash = objects.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    println!("cargo::rustc-env=WHY502_BPF_SHA256={hash}");
    origin::tell(&workspace, &folder)
}

fn workspace() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    Ok(Path::new(&manifest).parent().context("this package has no workspace around it")?.to_owned())
}

/// Sets a variable for the programs that aya-build starts: it takes no environment of their own for them.
fn set(name: &str, value: impl AsRef<OsStr>) {
    // SAFETY: a build script is a process of its own, and this one has started no thread yet.
    unsafe { env::set_var(name, value) };
}
