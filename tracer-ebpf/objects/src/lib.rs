//! The BPF objects before they are part of the program: what they are made of, how they are built, and those that come prebuilt, for who has no
//! toolchain for the kernel side.

pub mod toolchain;

pub mod sources;

pub mod record;

#[cfg(feature = "make")]
mod lean;

#[cfg(feature = "make")]
pub mod fresh;

#[cfg(feature = "make")]
pub mod prebuilt;

use sha2::{Digest as _, Sha256};

/// What they are called.
pub const NAMES: [&str; 3] = ["why502-bpf", "why502-backlog-bpf", "why502-sockets-bpf"];

/// The processors that they come prebuilt for, as rustc calls them: registers have other places on each.
pub const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// The objects for one processor, in the order of [`NAMES`], without what only debuggers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects(pub [Vec<u8>; NAMES.len()]);

impl Objects {
    /// What they hash to, together.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        self.0.iter().for_each(|object| hash.update(object));
        hex(&hash.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a record's line `key=value` says.
fn value<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}
