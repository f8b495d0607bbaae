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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::record::Record;

    fn workspace() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
    }

    /// What is hashed, and a file that is not, elsewhere.
    fn copy() -> TempDir {
        let folder = TempDir::new().unwrap();
        for place in watched() {
            for file in files(workspace(), Path::new(place)).unwrap() {
                let to = folder.path().join(&file);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(workspace().join(&file), to).unwrap();
            }
        }
        folder
    }

    /// The hash after a file was changed.
    fn changed(file: &str, change: impl Fn(&str) -> String) -> String {
        let folder = copy();
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, change(&fs::read_to_string(&path).unwrap_or_default())).unwrap();
        hash(folder.path()).unwrap()
    }

    #[test]
    fn the_prebuilt_objects_are_of_these_sources() {
        let record = Record::read(workspace()).unwrap();
        assert_eq!(hash(workspace()).unwrap(), record.sources, "run `cargo xtask prebuild`");
    }

    #[test]
    fn neither_place_nor_time_nor_line_ends_nor_anything_else_of_the_project_matters() {
        let now = hash(workspace()).unwrap();
        assert_eq!(hash(copy().path()).unwrap(), now);
        let with_returns = |text: &str| text.replace('\n', "\r\n");
        for file in ["tracer-ebpf/src/why502-bpf.rs", "Cargo.toml", "Cargo.lock", ".cargo/config.toml"] {
            assert_eq!(changed(file, with_returns), now, "{file}");
        }
        let touched = |text: &str| format!("{text}\n");
        for file in
            ["tracer-user/src/main.rs", "tracer-ebpf/src/.main.rs.swp", "tracer-ebpf/objects/src/main.rs"]
        {
            assert_eq!(changed(file, touched), now, "{file}");
        }
        let other =
            |text: &str| text.replace("name = \"tokio\"\nversion = \"", "name = \"tokio\"\nversion = \"9");
        assert_eq!(changed("Cargo.lock", other), now);
        assert_eq!(
            changed("Cargo.toml", |text| text.replace("tokio = { version = \"", "tokio = { version = \"9")),
            now
        );
    }

    #[test]
    fn each_thing_that_they_are_made_of_matters() {
        let now = hash(workspace()).unwrap();
        let more = |text: &str| format!("{text}// more\n");
        for file in
            ["tracer-ebpf/src/kernel/read.rs", "tracer-ebpf/wire/src/layout.rs", "tracer-ebpf/src/new.rs"]
        {
            assert_ne!(changed(file, more), now, "{file}");
        }
        let linker = |text: &str| text.replace("codegen-units = 1", "codegen-units = 2");
        assert_ne!(changed("Cargo.toml", linker), now);
        let aya = |text: &str| {
            text.replace("name = \"aya-ebpf\"\nversion = \"", "name = \"aya-ebpf\"\nversion = \"9")
        };
        assert_ne!(changed("Cargo.lock", aya), now);
        let bindings = |text: &str| {
            text.replace(
                "name = \"aya-ebpf-bindings\"\nversion = \"",
                "name = \"aya-ebpf-bindings\"\nversion = \"9",
            )
        };
        assert_ne!(changed("Cargo.lock", bindings), now);
    }

    #[test]
    fn a_checkout_that_is_not_whole_is_said() {
        let folder = copy();
        fs::remove_file(folder.path().join("Cargo.lock")).unwrap();
        assert!(hash(folder.path()).unwrap_err().to_string().contains("Cargo.lock cannot be read"));
    }
}
