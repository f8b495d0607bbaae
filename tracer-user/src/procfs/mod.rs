//! What /proc and its like say of this host and of the processes on it.

pub mod cgroup;
pub(crate) mod host;
pub(crate) mod netlink;
pub(crate) mod processes;
pub mod trust;
