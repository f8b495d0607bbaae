//! The objects that come prebuilt, and when they are taken.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    NAMES, Objects,
    record::{FOLDER, Record},
    toolchain::BpfToolchain,
};

/// How hard to compress: a fraction of a second, and a twelfth of the size.
const LEVEL: i32 = 19;

/// Compresses an object.
///
/// # Errors
/// If it cannot be compressed.
pub fn pack(object: &[u8]) -> Result<Vec<u8>> {
    zstd::encode_all(object, LEVEL).context("an object cannot be compressed")
}

/// Reads those for a processor, if they are what the record says.
///
/// # Errors
/// If they are not, or cannot be read.
pub fn read(workspace: &Path, arch: &str) -> Result<Objects> {
    let hash = Record::read(workspace)?;
    let hash = hash.objects_for(arch)?;
    let object = |name: &str| {
        let path = workspace.join(FOLDER).join(arch).join(name).with_added_extension("zst");
        let packed = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        zstd::decode_all(&packed[..]).with_context(|| format!("{} cannot be unpacked", path.display()))
    };
    let [live, backlog, sockets] = NAMES.map(object);
    let objects = Objects([live?, backlog?, sockets?]);
    ensure!(objects.hash() == hash, "the objects in {FOLDER}/{arch} are not those that its record names");
    Ok(objects)
}

/// Writes those for a processor. What is the same already stays as it is, for another zstd compresses to other bytes.
///
/// # Errors
/// If they cannot be written.
pub fn write(workspace: &Path, arch: &str, objects: &Objects) -> Result<()> {
    let folder = workspace.join(FOLDER).join(arch);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for (name, object) in NAMES.iter().zip(&objects.0) {
        let path = folder.join(name).with_added_extension("zst");
        let is_there =
            fs::read(&path).is_ok_and(|packed| zstd::decode_all(&packed[..]).is_ok_and(|is| is == *object));
        if !is_there {
            fs::write(&path, pack(object)?)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
    }
    Ok(())
}

/// Whether a toolchain for the kernel side is there.
#[derive(Debug)]
pub enum State {
    /// As it was recorded.
    Ready(BpfToolchain),
    /// It was recorded, and is another one now, or gone.
    Changed(BpfToolchain),
    /// None was set up.
    Missing,
}

impl State {
    /// What is so now.
    pub fn now(workspace: &Path) -> Self {
        match BpfToolchain::read(workspace) {
            Ok(toolchain) if toolchain.is_ready(workspace) => Self::Ready(toolchain),
            Ok(toolchain) => Self::Changed(toolchain),
            Err(_) => Self::Missing,
        }
    }

    /// The toolchain to build objects with, or none where the prebuilt ones serve as well. `are_same` says whether these were made of the sources
    /// that are here.
    ///
    /// # Errors
    /// If they were not, and nothing here can build others.
    pub fn choose(self, are_same: bool) -> Result<Option<BpfToolchain>> {
        let why = match self {
            Self::Ready(toolchain) => return Ok(Some(toolchain)),
            Self::Changed(_) | Self::Missing if are_same => return Ok(None),
            Self::Changed(toolchain) => format!("`{}` is no longer {}", toolchain.name, toolchain.rustc),
            Self::Missing => "there is no toolchain to build them with".to_owned(),
        };
        bail!(
            "the sources of the BPF objects were changed since the prebuilt ones were made, and {why}: run `cargo xtask setup` once as root"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ARCHITECTURES;

    fn toolchain() -> BpfToolchain {
        BpfToolchain { name: "nightly-x".to_owned(), rustc: "rustc 1.0".to_owned(), bootstrap: false }
    }

    #[test]
    fn who_has_the_toolchain_builds_and_who_has_none_takes_what_is_prebuilt() {
        for are_same in [true, false] {
            assert_eq!(State::Ready(toolchain()).choose(are_same).unwrap(), Some(toolchain()));
        }
        assert_eq!(State::Changed(toolchain()).choose(true).unwrap(), None);
        assert_eq!(State::Missing.choose(true).unwrap(), None);
    }

    #[test]
    fn objects_of_other_sources_are_never_taken() {
        let missing = State::Missing.choose(false).unwrap_err().to_string();
        assert!(missing.contains("sources of the BPF objects were changed"), "{missing}");
        assert!(missing.ends_with("run `cargo xtask setup` once as root"), "{missing}");
        let changed = State::Changed(toolchain()).choose(false).unwrap_err().to_string();
        assert!(changed.contains("`nightly-x` is no longer rustc 1.0: run"), "{changed}");
    }

    #[test]
    fn what_is_prebuilt_is_what_the_record_names() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        for arch in ARCHITECTURES {
            read(workspace, arch).unwrap();
        }
    }
}
