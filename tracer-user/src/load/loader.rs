//! Loads an object: what every kernel side needs before, and its maps.

use std::collections::HashSet;

use aya::{Ebpf, EbpfLoader};
use wire::Layout;

use super::{
    btf, kernel_functions, left_out, lockdown, missing, object::Object, privileges, refused::refused,
};
use crate::model::{failure::Failure, hook_kind::HookKind};

/// Sees to what every kernel side needs: privileges, room, and the running kernel's layout.
pub(super) fn prepare() -> Result<(btf::Kernel, Layout), Failure> {
    privileges::check()?;
    missing::check()?;
    lockdown::check()?;
    privileges::lift_memory_limit();
    let kernel = btf::Kernel::running()?;
    let layout = kernel.layout()?;
    Ok((kernel, layout))
}

/// A loader for objects that are to know the kernel's layout. Each new one reads all of the kernel's types, which no object of ours asks for.
pub(super) fn loader(layout: &Layout) -> EbpfLoader<'_> {
    let mut loader = EbpfLoader::new();
    loader.btf(None).override_global("LAYOUT", layout, true);
    loader
}

/// Makes an object's maps, with its programs as they are to be on this kernel, but for those of useless kinds: whatever programs the loader
/// reads, it keeps.
pub(super) fn load(
    loader: &mut EbpfLoader<'_>,
    object: Object,
    kernel: &btf::Kernel,
    useless: &HashSet<HookKind>,
) -> Result<Ebpf, Failure> {
    let mut settled = kernel_functions::settled(object.elf()?, kernel_functions::numbers(kernel))?;
    left_out::leave_out(&mut settled, |section| useless.iter().any(|kind| kind.is_of(section)))?;
    loader.load(&settled).map_err(|error| {
        Failure::CannotTrace(format!("this kernel refuses the BPF maps: {}", refused(&error)))
    })
}
