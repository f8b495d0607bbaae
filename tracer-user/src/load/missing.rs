//! What a kernel that is too old, or a root without /sys, lacks: in one sentence, before anything fails for want of it.

use std::{io, path::Path};

use aya::{maps::MapType, sys::is_map_supported};

use super::given::{self, PATH, WHERE_TO_GET};
use crate::model::failure::Failure;

/// What the sentence is made of.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    has_sys: bool,
    /// The kernel's types, its own or given.
    has_types: bool,
    has_ring: bool,
}

impl Facts {
    fn now() -> Self {
        Self {
            has_sys: Path::new("/sys/kernel").is_dir(),
            has_types: given::given_types().is_some() || !is_absent(Path::new(PATH)),
            // Where that cannot be asked, loading will show it.
            has_ring: is_map_supported(MapType::RingBuf).unwrap_or(true),
        }
    }

    /// What is in the way: what the host lacks before what the kernel does, and of that first what cannot be helped.
    fn obstacle(self) -> Option<String> {
        let Self { has_sys, has_types, has_ring } = self;
        if !has_sys {
            return Some("there is no /sys, where the kernel shows its types and hooks: mount it (mount -t sysfs sysfs /sys)".to_owned());
        }
        if !has_ring {
            return Some(
                "this kernel's BPF has no ring buffer, which why502 needs: Linux has it since 5.8".to_owned(),
            );
        }
        if !has_types {
            return Some(format!(
                "{PATH} does not exist: this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF), which why502 needs: give it \
                 this very kernel's by --btf FILE, from {WHERE_TO_GET}"
            ));
        }
        None
    }
}

fn is_absent(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Checks that nothing is lacking that cannot be done without.
///
/// # Errors
/// Names it, and what to do.
pub(super) fn check() -> Result<(), Failure> {
    Facts::now().obstacle().map_or(Ok(()), |why| Err(Failure::CannotTrace(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Facts = Facts { has_sys: true, has_types: true, has_ring: true };

    #[test]
    fn this_kernel_lacks_nothing() {
        assert_eq!((Facts::now().obstacle(), ALL.obstacle()), (None, None));
    }

    #[test]
    fn a_kernel_without_btf_is_reported_with_what_to_give() {
        let why = Facts { has_types: false, ..ALL }.obstacle().unwrap();
        for word in ["without BTF", "--btf FILE", "btfhub", "debug symbols"] {
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn nobody_seeks_btf_for_a_kernel_that_is_too_old() {
        let why = Facts { has_types: false, has_ring: false, ..ALL }.obstacle().unwrap();
        assert!(why.contains("ring buffer") && why.contains("5.8") && !why.contains("--btf"), "{why}");
    }

    #[test]
    fn a_root_without_sys_says_nothing_of_the_kernel() {
        let why = Facts { has_sys: false, has_types: false, ..ALL }.obstacle().unwrap();
        assert!(why.contains("mount -t sysfs sysfs /sys") && !why.contains("without BTF"), "{why}");
    }
}
