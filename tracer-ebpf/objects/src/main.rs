//! Renews the prebuilt objects, or with `--check` says whether they are what their sources give. `cargo xtask prebuild` runs it.

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use bpf_objects::{
    ARCHITECTURES, Objects, fresh,
    prebuilt::{self, State},
    record::{Record, Tools},
    sources,
    toolchain::BpfToolchain,
};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => workspace().and_then(renew),
        ["--check"] => workspace().and_then(check),
        _ => Err(anyhow::anyhow!("it takes nothing, or --check")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn workspace() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("this package has no workspace around it")
}

fn toolchain(workspace: &Path) -> Result<BpfToolchain> {
    match State::now(workspace) {
        State::Ready(toolchain) => Ok(toolchain),
        State::Changed(_) | State::Missing => {
            bail!("the toolchain for the BPF side is not there: run `cargo xtask setup` once as root")
        }
    }
}

/// Builds them all.
fn built(workspace: &Path, toolchain: &BpfToolchain) -> Result<Vec<(&'static str, Objects)>> {
    let own = BpfToolchain::folder(workspace);
    let build = |arch| {
        let (objects, warnings) = fresh::build(workspace, toolchain, arch, &own)?;
        eprint!("{warnings}");
        Ok((arch, objects))
    };
    ARCHITECTURES.into_iter().map(build).collect()
}

fn renew(workspace: &Path) -> Result<()> {
    let toolchain = toolchain(workspace)?;
    let tools = Tools::of(workspace, &toolchain)?;
    let mut objects = ARCHITECTURES.map(|_| String::new());
    for (hash, (arch, built)) in objects.iter_mut().zip(built(workspace, &toolchain)?) {
        prebuilt::write(workspace, arch, &built)?;
        *hash = built.hash();
    }
    let record = Record { tools, sources: sources::hash(workspace)?, objects };
    let path = Record::path(workspace);
    let is_new = Record::read(workspace).is_ok_and(|before| before == record);
    println!("the prebuilt BPF objects {}", if is_new { "are what they were" } else { "are renewed" });
    fs::write(&path, record.to_string()).with_context(|| format!("{} cannot be written", path.display()))
}

/// They are built only where that can give the same bytes: with the tools that the record names.
fn check(workspace: &Path) -> Result<()> {
    const RENEW: &str = "run `cargo xtask prebuild`";
    let record = Record::read(workspace)?;
    if !record.is_of_these_sources(workspace)? {
        bail!("the prebuilt BPF objects were not made of these sources: {RENEW}");
    }
    for arch in ARCHITECTURES {
        prebuilt::read(workspace, arch)?;
    }
    let toolchain = toolchain(workspace)?;
    let tools = Tools::of(workspace, &toolchain)?;
    if tools != record.tools {
        println!("the prebuilt BPF objects are of these sources; {} gives others", tools.rustc);
        return Ok(());
    }
    for (arch, built) in built(workspace, &toolchain)? {
        if built != prebuilt::read(workspace, arch)? {
            bail!("the prebuilt BPF objects for {arch} are not what these sources give: {RENEW}");
        }
    }
    println!("the prebuilt BPF objects are, byte for byte, what these sources give");
    Ok(())
}
