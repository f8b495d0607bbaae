//! A listener that was closed, as the kernel side remembers it for a while.

use crate::COMM_LEN;

/// Where it listened.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenPlace {
    /// The inode number of its network namespace.
    pub netns: u32,
    /// Its port.
    pub port: u32,
    /// Its address, as in [`crate::Endpoint`].
    pub addr: [u32; 4],
}

/// Who closed it, and when.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ClosedListener {
    /// When.
    pub ns: u64,
    /// When somebody began to listen at the same place again; zero for not yet.
    pub again_ns: u64,
    /// The process that closed it, as the last one that held it.
    pub tgid: u32,
    /// The inode number of its socket's network namespace.
    pub netns: u32,
    /// One if that process was ending.
    pub exiting: u32,
    /// Its `task_struct.exit_code` then: the signal in the low seven bits.
    pub exit_code: u32,
    /// Its name.
    pub comm: [u8; COMM_LEN],
}
