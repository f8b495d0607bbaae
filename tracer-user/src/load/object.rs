//! The BPF objects that the build script made, compressed: most of an object is names and zeros, and as it is read it would be a seventh of
//! the program.

use anyhow::Context as _;

use crate::model::failure::Failure;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object(&'static [u8]);

impl Object {
    /// What `live` and all that trace as it does attach.
    pub(super) const LIVE: Self = Self(include_bytes!(concat!(env!("OUT_DIR"), "/why502-bpf.zst")));
    /// What `backlog` attaches.
    pub(super) const BACKLOG: Self =
        Self(include_bytes!(concat!(env!("OUT_DIR"), "/why502-backlog-bpf.zst")));
    /// What finds the sockets that processes hold.
    pub(super) const SOCKETS: Self =
        Self(include_bytes!(concat!(env!("OUT_DIR"), "/why502-sockets-bpf.zst")));

    /// As the loader reads it.
    ///
    /// # Errors
    /// If it is not what the build script made.
    pub(super) fn elf(self) -> Result<Vec<u8>, Failure> {
        Ok(zstd::decode_all(self.0).context("the BPF object in this program cannot be read")?)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env::consts::ARCH, path::Path};

    use bpf_objects::{NAMES, Objects, prebuilt, record::Record};

    use super::*;

    /// The names of an object's programs and maps.
    fn names(elf: &[u8]) -> [BTreeSet<String>; 2] {
        let object = aya_obj::Object::parse(elf).unwrap();
        [object.programs.into_keys().collect(), object.maps.into_keys().collect()]
    }

    /// Whose compiler and linker are those that made the prebuilt ones gets the same bytes. Others give other ones, for the same kernel.
    #[test]
    fn what_is_built_from_the_sources_is_what_comes_prebuilt() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let there = prebuilt::read(workspace, ARCH).unwrap();
        let here =
            Objects([Object::LIVE, Object::BACKLOG, Object::SOCKETS].map(|object| object.elf().unwrap()));
        let by = env!("WHY502_BPF_TOOLS");
        let theirs = Record::read(workspace).unwrap().tools;
        if by == format!("built by {theirs}") || by == "prebuilt" {
            assert!(here == there, "the prebuilt BPF objects are others: run `cargo xtask prebuild`");
            crate::notice!("compared byte by byte: the BPF objects are {by}");
            return;
        }
        for (name, (here, there)) in NAMES.iter().zip(here.0.iter().zip(&there.0)) {
            assert_eq!(
                names(here),
                names(there),
                "{name}: run `cargo xtask prebuild` where {theirs} is set up"
            );
        }
        crate::notice!(
            "compared by the names of programs and maps only: the BPF objects are {by}, the prebuilt ones by {theirs}"
        );
    }
}
