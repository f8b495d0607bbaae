//! Which control group a process was in, as its own acts showed while it lived.

/// A process's control group in the default hierarchy (cgroup v2).
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Member {
    /// When its first thread began: with its pid the name of the process.
    pub began_ns: u64,
    /// The control group's identity, which is its folder's inode number there (`cgroup_id`, include/linux/cgroup.h).
    pub cgroup: u64,
}
