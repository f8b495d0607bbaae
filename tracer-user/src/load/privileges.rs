//! What the process must be allowed to do.

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::model::failure::Failure;

/// Capability numbers, include/uapi/linux/capability.h.
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Names each capability that `effective` lacks. CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
fn missing(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective >> capability & 1 == 1;
    [
        (CAP_BPF, "CAP_BPF", true),
        (CAP_PERFMON, "CAP_PERFMON", true),
        (CAP_SYS_PTRACE, "CAP_SYS_PTRACE", false),
    ]
    .into_iter()
    .filter(|&(number, _, in_admin)| !(has(number) || in_admin && has(CAP_SYS_ADMIN)))
    .map(|(_, name, _)| name)
    .collect()
}

/// Names each capability that tracing needs and this process lacks.
///
/// # Errors
/// Where /proc does not tell.
pub fn missing_capabilities() -> Result<Vec<&'static str>, Failure> {
    let status =
        procfs::process::Process::myself().and_then(|process| process.status()).map_err(|error| {
            Failure::CannotTrace(format!("/proc/self/status cannot be read ({error}): mount /proc"))
        })?;
    Ok(missing(status.capeff))
}

/// Checks that this process may trace.
///
/// # Errors
/// Names the capabilities that are missing.
pub(super) fn check() -> Result<(), Failure> {
    let missing = missing_capabilities()?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::CannotTrace(format!(
        "tracing needs {}, which this process does not have: run why502 as root",
        missing.join(" and ")
    )))
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
        assert!(missing(u64::MAX).is_empty());
        assert_eq!(missing(0), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
    }

    #[test]
    fn sys_admin_stands_for_bpf_and_perfmon_but_not_for_ptrace() {
        assert_eq!(missing(1 << CAP_SYS_ADMIN), ["CAP_SYS_PTRACE"]);
        assert!(missing(1 << CAP_SYS_ADMIN | 1 << CAP_SYS_PTRACE).is_empty());
    }
}
