//! What the objects are made of, as one hash: it says whether prebuilt ones are those of this checkout.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::hex;

/// The files and folders; of folders what is Rust or a manifest. Everything else of the project may change without them.
pub const WHOLE: [&str; 6] = [
    ".cargo/config.toml",
    "tracer-ebpf/Cargo.toml",
    "tracer-ebpf/objects/src/fresh.rs",
    "tracer-ebpf/objects/src/lean.rs",
    "tracer-ebpf/src",
    "tracer-ebpf/wire",
];

/// The files of which only parts matter: [`SECTIONS`] of the first, and of the second the packages that the kernel side is linked with.
pub const PARTLY: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// What counts of the workspace's manifest, beside the versions that it asks for.
const SECTIONS: [&str; 4] = [
    "[workspace.package]",
    "[profile.release]",
    "[profile.release.package.tracer-ebpf]",
    "[profile.release.package.wire]",
];

/// Hashes them. Neither how lines end nor when a file was written matters.
///
/// # Errors
/// If one cannot be read, or is not as expected.
pub fn hash(workspace: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut take = |name: &str, text: &str| {
        for part in [name, text] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    };
    for place in WHOLE {
        for file in files(workspace, Path::new(place))? {
            let name = file.to_str().context("a file's name is not UTF-8")?;
            take(name, &read(workspace, name)?);
        }
    }
    let lock = read(workspace, "Cargo.lock")?;
    let linked = linked(&lock).context("Cargo.lock is not as expected")?;
    take("Cargo.toml", &manifest(&read(workspace, "Cargo.toml")?));
    take("Cargo.lock", &linked);
    Ok(hex(&hash.finalize()))
}

fn read(workspace: &Path, name: &str) -> Result<String> {
    let path = workspace.join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(text.replace("\r\n", "\n"))
}

/// The file, or what counts in the folder, in one order everywhere; relative to the workspace.
fn files(workspace: &Path, place: &Path) -> Result<BTreeSet<PathBuf>> {
    let path = workspace.join(place);
    if !path.is_dir() {
        return Ok([place.to_owned()].into());
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(&path).with_context(|| format!("{} cannot be read", path.display()))? {
        let entry = entry?;
        let (name, inner) = (entry.file_name(), place.join(entry.file_name()));
        // Editors leave files of their own.
        if entry.file_type()?.is_dir()
            || inner.extension().is_some_and(|is| is == "rs")
            || name == "Cargo.toml"
        {
            found.extend(files(workspace, &inner)?);
        }
    }
    Ok(found)
}

/// The lines of [`SECTIONS`].
fn manifest(text: &str) -> String {
    let mut is_in = false;
    let mut kept = String::new();
    for line in text.lines().map(str::trim_end) {
        if line.starts_with('[') {
            is_in = SECTIONS.contains(&line);
        }
        if is_in && !line.is_empty() && !line.starts_with('#') {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// The entries of a lock file for what the kernel side is linked with, and for what that is built with; none if there is no such.
fn linked(lock: &str) -> Option<String> {
    let entries: Vec<&str> =
        lock.split("\n\n").filter(|entry| entry.trim_start().starts_with("[[package]]")).collect();
    let of = |name: &str| {
        let line = format!("name = \"{name}\"");
        entries.iter().copied().filter(move |entry| entry.lines().any(|found| found == line))
    };
    // Those of `wire` are for userspace.
    let mut open: Vec<&str> =
        dependencies(of("tracer-ebpf").next()?).filter(|name| *name != "wire").collect();
    let mut known = BTreeSet::new();
    while let Some(name) = open.pop() {
        for entry in of(name) {
            if known.insert(entry.trim()) {
                open.extend(dependencies(entry));
            }
        }
    }
    (!known.is_empty()).then(|| known.into_iter().collect::<Vec<_>>().join("\n"))
}

/// The names that an entry lists. A version may follow where there are several of one name: then each of them counts.
fn dependencies(entry: &str) -> impl Iterator<Item = &str> {
    let listed = entry.lines().skip_while(|line| *line != "dependencies = [").skip(1);
    listed
        .take_while(|line| *line != "]")
        .filter_map(|line| line.trim().trim_end_matches(',').trim_matches('"').split(' ').next())
}

/// The names, for who watches them.
pub fn watched() -> impl Iterator<Item = &'static str> {
    WHOLE.into_iter().chain(PARTLY)
}
