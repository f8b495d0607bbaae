//! What is only counted.

/// Counters of the kernel side, in one map entry; each only grows.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Exchanges that passed the filters and have ended, well or not.
    pub exchanges: u64,
    /// Connections that passed the filters.
    pub connections: u64,
    /// Connections that were not watched because the table of open ones was full.
    pub untracked: u64,
    /// Worker ends that were not watched for the same reason.
    pub workers_untracked: u64,
    /// Records that the full ring buffer refused.
    pub lost: u64,
    /// Sends of our processes on unix sockets that are connected to a path and not watched.
    pub unix_seen: u64,
    /// Events that a program's further copy took because the first had missed them ([`crate::copy`]).
    pub stood_in: u64,
    /// Returns of functions that kretprobes missed, as far as the same thread called the function again.
    pub returns_missed: u64,
}
