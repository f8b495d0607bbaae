//! What the licences of the dependencies ask to be handed out with the program: who wrote them, and the texts.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

use super::dependencies::Dependency;

/// How files that hold such a text begin.
const NAMES: [&str; 6] = ["licen", "copying", "copyright", "notice", "unlicense", "authors"];
/// The C library that is linked statically, and Rust's own.
const LIBRARIES: &str = "\
musl (MIT)
  Copyright (c) 2005-2020 Rich Felker, et al.
The standard library of Rust (MIT OR Apache-2.0)
  Copyright (c) The Rust Project Contributors";
/// What the LGPL asks of whoever hands the program out.
const LGPL: &str = "\
btf-rs and btf-rs-derive are linked statically and under the GNU Lesser General Public License, version 2.1
or later. You may change them and link why502 anew: the whole source at the commit that `why502 --version`
tells, with its Cargo.lock, is all that this takes; `cargo build` with a [patch.crates-io] does it.";

/// All of it as one text.
pub(crate) fn of(dependencies: &[Dependency]) -> Result<String> {
    let mut text =
        "why502 is under the MIT licence. It holds, besides, what others have written:\n\n".to_owned();
    // Most packages have the same text of the Apache licence.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for dependency in dependencies {
        let Dependency { name, version, licence, folder } = dependency;
        let line = format!("{name} {version} ({licence})");
        text += &format!("{line}\n");
        for found in licences(folder).with_context(|| format!("the licence of {name} cannot be read"))? {
            texts.entry(found).or_default().push(format!("{name} {version}"));
        }
    }
    text += &format!("{LIBRARIES}\n\n{LGPL}\n");
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_by(|one, other| one.1.cmp(&other.1));
    for (licence, whose) in texts {
        let rule = "-".repeat(80);
        text += &format!("\n{rule}\nOf {}:\n\n{licence}\n", whose.join(", "));
    }
    Ok(text)
}

/// The texts beside a package's manifest, and beside the C source that zstd-sys holds.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in [folder.to_owned(), folder.join("zstd")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            if path.is_file() && NAMES.iter().any(|start| name.starts_with(start)) {
                let text = String::from_utf8_lossy(&fs::read(&path)?).replace('\r', "");
                found.push(text.trim_matches('\n').trim_end().to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}
