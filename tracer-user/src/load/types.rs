//! The running kernel's types, as the loader wants them for programs that are attached by type.

use aya::{Btf, BtfError};

/// Read when a program first needs them, and once for all that do: they take some 15 MiB, and a tenth of a second.
#[derive(Debug, Default)]
pub(super) struct Types(Option<Btf>);

impl Types {
    /// All types.
    ///
    /// # Errors
    /// Where the kernel shows none.
    pub(super) fn get(&mut self) -> Result<&Btf, BtfError> {
        match &mut self.0 {
            Some(types) => Ok(types),
            none => Ok(none.insert(Btf::from_sys_fs()?)),
        }
    }
}
