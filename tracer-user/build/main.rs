//! Makes the BPF objects for the program to include from `OUT_DIR`: builds them where the toolchain that `cargo xtask setup` installs is there, and
//! otherwise takes the prebuilt ones, if they are of the same sources.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use bpf_objects::{
    NAMES, fresh,
    prebuilt::{self, State},
    record::{FOLDER, Record, Tools},
    sources,
    toolchain::BpfToolchain,
};

mod origin;

fn main() {
    if let Err(error) = build() {
        println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
    }
}

fn build() -> Result<()> {
    let given = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let bits = (given("CARGO_CFG_TARGET_POINTER_WIDTH")?, given("CARGO_CFG_TARGET_ENDIAN")?);
    ensure!(
        bits == ("64".to_owned(), "little".to_owned()),
        "why502 runs on 64-bit, little-endian machines only: it reads the kernel's memory as such"
    );
    let arch = given("CARGO_CFG_TARGET_ARCH")?;
    let folder = PathBuf::from(given("OUT_DIR")?);
    let workspace = workspace()?;
    // Cargo takes a file that is missing for one that changes all the time.
    let toolchain = BpfToolchain::path(&workspace);
    for path in sources::watched().map(|name| workspace.join(name)).chain([toolchain]) {
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }

    let state = State::now(&workspace);
    let are_same =
        matches!(state, State::Ready(_)) || Record::read(&workspace)?.is_of_these_sources(&workspace)?;
    let (objects, tools) = match state.choose(are_same)? {
        Some(toolchain) => {
            let (objects, warnings) = fresh::build(&workspace, &toolchain, &arch, &folder.join("target"))?;
            warnings.lines().for_each(|line| println!("cargo::warning={line}"));
            (objects, format!("built by {}", Tools::of(&workspace, &toolchain)?))
        }
        None => {
            println!("cargo::rerun-if-changed={}", workspace.join(FOLDER).display());
            (prebuilt::read(&workspace, &arch)?, "prebuilt".to_owned())
        }
    };
    for (name, object) in NAMES.iter().zip(&objects.0) {
        let path = folder.join(name).with_added_extension("zst");
        fs::write(&path, prebuilt::pack(object)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    println!("cargo::rustc-env=WHY502_BPF_SHA256={:.16}", objects.hash());
    println!("cargo::rustc-env=WHY502_BPF_TOOLS={tools}");
    origin::emit(&workspace, &folder)
}

fn workspace() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    Ok(Path::new(&manifest).parent().context("this package has no workspace around it")?.to_owned())
}
