//! Kernel lockdown: what even root may not do (security/lockdown, since 5.4).

use std::{fs, io, path::Path};

use crate::model::failure::Failure;

const FOLDER: &str = "/sys/kernel/security";

/// How far the kernel is locked down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    Off,
    /// The running kernel cannot be changed; it can still be read.
    Integrity,
    /// Nor can its memory be read, by BPF programs neither (`LOCKDOWN_BPF_READ_KERNEL`).
    Confidentiality,
    /// securityfs, which says so, is not mounted or cannot be read.
    Unknown,
}

impl Lockdown {
    /// The running kernel's.
    pub fn now() -> Self {
        let folder = Path::new(FOLDER);
        match fs::read_to_string(folder.join("lockdown")) {
            Ok(modes) => Self::parse(&modes),
            // securityfs always has this file; without the other one the kernel knows no lockdown.
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder.join("lsm").exists() => Self::Off,
            Err(_) => Self::Unknown,
        }
    }

    /// The kernel writes every mode, and brackets around the one in force.
    fn parse(modes: &str) -> Self {
        match modes.split_whitespace().find(|mode| mode.starts_with('[')) {
            Some("[none]") => Self::Off,
            Some("[integrity]") => Self::Integrity,
            Some("[confidentiality]") => Self::Confidentiality,
            _ => Self::Unknown,
        }
    }
}

/// Checks that BPF programs may read the kernel.
///
/// # Errors
/// In confidentiality mode.
pub(super) fn check() -> Result<(), Failure> {
    match Lockdown::now() {
        Lockdown::Confidentiality => Err(Failure::CannotTrace(
            "this kernel is locked down in confidentiality mode, in which no BPF program may read its memory: boot it with \
             lockdown=integrity or without lockdown"
                .to_owned(),
        )),
        Lockdown::Off | Lockdown::Integrity | Lockdown::Unknown => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_force_is_the_one_in_brackets() {
        assert_eq!(Lockdown::parse("[none] integrity confidentiality\n"), Lockdown::Off);
        assert_eq!(Lockdown::parse("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(Lockdown::parse("none integrity [confidentiality]\n"), Lockdown::Confidentiality);
        assert_eq!(Lockdown::parse(""), Lockdown::Unknown);
    }
}
