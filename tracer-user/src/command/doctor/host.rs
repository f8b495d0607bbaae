//! What the host allows before any hook is tried.

use std::path::Path;

use caps::Capability;

use crate::{
    confine::Means,
    load::{BTF_PATH, Lockdown, given_types, missing_capabilities, tracefs_is_mounted},
};

/// The kernel and this process's standing on it.
#[derive(Clone, Debug)]
pub struct Host {
    /// `uname -r`.
    pub kernel: String,
    /// Whether the kernel shows its types.
    pub has_btf: bool,
    /// The file that they are taken from instead.
    pub given_btf: Option<&'static Path>,
    /// How far it is locked down.
    pub lockdown: Lockdown,
    /// The capabilities that tracing needs and this process lacks; none where the kernel does not say.
    pub missing_capabilities: Option<Vec<Capability>>,
    /// Whether tracefs is mounted.
    pub has_tracefs: bool,
    /// What the kernel has to confine this program with.
    pub means: Means,
}

impl Host {
    /// This one.
    pub fn now() -> Self {
        Self {
            kernel: crate::procfs::settings::kernel(),
            has_btf: Path::new(BTF_PATH).exists(),
            given_btf: given_types(),
            lockdown: Lockdown::now(),
            missing_capabilities: missing_capabilities().ok(),
            has_tracefs: tracefs_is_mounted(),
            means: Means::here(),
        }
    }
}
