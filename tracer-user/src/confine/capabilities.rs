//! Capabilities.

use caps::{CapSet, Capability, CapsHashSet};

/// The calling thread keeps these, as far as it has them, and nothing else.
///
/// # Errors
/// What the kernel refused, in words.
pub(super) fn keep(kept: impl Iterator<Item = Capability>) -> Result<(), String> {
    let keep = || {
        let permitted = caps::read(None, CapSet::Permitted)?;
        let kept: CapsHashSet = kept.filter(|capability| permitted.contains(capability)).collect();
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)
    };
    keep().map_err(|error| format!("capabilities cannot be given up: {error}"))
}

/// What it takes to open files that others have made, and to write the results.
pub(super) fn opening(writes_elsewhere: bool) -> impl Iterator<Item = Capability> {
    [Capability::CAP_DAC_READ_SEARCH].into_iter().chain(writing(writes_elsewhere))
}

/// What it takes to write the results.
pub(super) fn writing(writes_elsewhere: bool) -> impl Iterator<Item = Capability> {
    writes_elsewhere.then_some(Capability::CAP_DAC_OVERRIDE).into_iter()
}
