//! What the process must be allowed to do.

use std::fs;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::model::failure::Failure;

/// What tracing cannot do without, and whether CAP_SYS_ADMIN includes it.
const NEEDED: [(Capability, bool); 3] =
    [(Capability::CAP_BPF, true), (Capability::CAP_PERFMON, true), (Capability::CAP_SYS_PTRACE, false)];

/// Each capability that `effective` lacks.
fn missing(effective: &CapsHashSet) -> Vec<Capability> {
    let has = |capability| effective.contains(&capability);
    NEEDED
        .into_iter()
        .filter(|&(capability, in_admin)| !(has(capability) || in_admin && has(Capability::CAP_SYS_ADMIN)))
        .map(|(capability, _)| capability)
        .collect()
}

/// Each capability that tracing needs and this process lacks.
///
/// # Errors
/// Where the kernel does not say.
pub fn missing_capabilities() -> Result<Vec<Capability>, Failure> {
    let effective = caps::read(None, CapSet::Effective).map_err(|error| {
        Failure::CannotTrace(format!("the capabilities of this process cannot be read ({error})"))
    })?;
    Ok(missing(&effective))
}

/// Checks that this process may trace.
///
/// # Errors
/// Names the capabilities that are missing, or /proc, without which no process is found.
pub(super) fn check() -> Result<(), Failure> {
    if let Err(error) = fs::metadata("/proc/self/status") {
        return Err(Failure::CannotTrace(format!("there is no /proc ({error}): mount /proc")));
    }
    let missing = missing_capabilities()?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::CannotTrace(format!(
        "tracing needs {}, which this process does not have: run why502 as root",
        names(&missing).join(" and ")
    )))
}

/// What they are called.
pub fn names(capabilities: &[Capability]) -> Vec<String> {
    capabilities.iter().map(ToString::to_string).collect()
}

/// Before 5.11 the kernel counts maps against RLIMIT_MEMLOCK. Where it cannot be lifted, loading says so.
pub(super) fn lift_memory_limit() {
    let _kept = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_lacks_nothing_and_an_ordinary_user_everything() {
        assert!(missing(&caps::all()).is_empty());
        assert_eq!(names(&missing(&CapsHashSet::new())), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
    }

    #[test]
    fn sys_admin_stands_for_bpf_and_perfmon_but_not_for_ptrace() {
        let (admin, ptrace) = (Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE);
        assert_eq!(missing(&[admin].into()), [ptrace]);
        assert!(missing(&[admin, ptrace].into()).is_empty());
    }
}
