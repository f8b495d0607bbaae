//! The running kernel's types, as the loader wants them for programs that are attached by type.

use std::io;

use aya::{Btf, BtfError};

use super::given::{self, PATH};

/// Why what is attached by type is not, where the types are a file's.
pub(super) const NEED_OWN: &str = "takes the kernel's own BTF, not a file's";

/// Read when a program first needs them, and once for all that do: they take some 15 MiB, and a tenth of a second.
#[derive(Debug, Default)]
pub(super) struct Types(Option<Btf>);

impl Types {
    /// All types.
    ///
    /// # Errors
    /// Where the kernel shows none, or others are in use: the kernel would take a number for a type of its own.
    pub(super) fn get(&mut self) -> Result<&Btf, BtfError> {
        match &mut self.0 {
            Some(types) => Ok(types),
            None if !given::are_own() => {
                let error = io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("the iterator over open files {NEED_OWN}"),
                );
                Err(BtfError::FileError { path: PATH.into(), error })
            }
            none => Ok(none.insert(Btf::from_sys_fs()?)),
        }
    }
}
