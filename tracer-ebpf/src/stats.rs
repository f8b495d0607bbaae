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
    /// Listeners that found no room, each as often as it was left out.
    pub listeners_untracked: u64,
    /// Addresses that were looked for since, so that the listeners are to be shown again.
    pub listeners_sought: u64,
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
            listeners_untracked: self.listeners_untracked + other.listeners_untracked,
            listeners_sought: self.listeners_sought + other.listeners_sought,
        }
    }
}
