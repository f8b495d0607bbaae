//! What /proc and its like say of this host and of the processes on it.

pub mod cgroup;
pub(crate) mod host;
pub(crate) mod masters;
pub(crate) mod netlink;
pub mod pressure;
pub(crate) mod processes;
pub(crate) mod settings;
pub mod trust;

/// This host's name.
///
/// # Errors
/// If /proc does not say it.
pub(crate) fn host_name() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}
