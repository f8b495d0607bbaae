//! The architectures that a release is made for, by the names that others give them.

use std::process::Command;

/// One of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// Intel's and AMD's.
    #[default]
    #[value(name = "x86-64")]
    X86_64,
    /// ARM's.
    Arm64,
}

impl Arch {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Arm64];

    /// Rust's target for a static program.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Debian's name, which is also Go's and so the images'.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Red Hat's.
    pub(crate) fn red_hat(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Says to cargo what to compile C with and what to link with, where that is not the machine's own.
    pub(crate) fn cross(self, command: &mut Command) {
        if self == Self::Arm64 {
            // The standard library for musl brings all else that is linked. The compiler's headers are glibc's, which serves as long as a
            // symbol that only glibc has fails the linking: no library of its own is looked into.
            command
                .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld")
                .env("CC_aarch64_unknown_linux_musl", "aarch64-linux-gnu-gcc");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_of_its_own_architecture() {
        for arch in Arch::ALL {
            assert!(arch.target().starts_with(arch.red_hat()), "{arch:?}");
        }
        assert_eq!(Arch::ALL.map(Arch::debian), ["amd64", "arm64"]);
    }
}
