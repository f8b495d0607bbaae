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
