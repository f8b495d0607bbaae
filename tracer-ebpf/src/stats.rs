//! What is only counted.

/// Counters of the kernel side, for each CPU; each but `stood_in` only grows.
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
    /// TCP connections of processes that have the name and are not trusted: not watched.
    pub strangers: u64,
    /// Their sends on unix sockets, and their connects where those are seen.
    pub unix_strangers: u64,
}

impl Stats {
    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            exchanges: self.exchanges + other.exchanges,
            connections: self.connections + other.connections,
            untracked: self.untracked + other.untracked,
            workers_untracked: self.workers_untracked + other.workers_untracked,
            lost: self.lost + other.lost,
            unix_seen: self.unix_seen + other.unix_seen,
            // One CPU may take back what another has counted.
            stood_in: self.stood_in.wrapping_add(other.stood_in),
            returns_missed: self.returns_missed + other.returns_missed,
            strangers: self.strangers + other.strangers,
            unix_strangers: self.unix_strangers + other.unix_strangers,
        }
    }
}
