//! Verdicts that a sink could not hand on, by reason.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a verdict was not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// As many waited as may.
    QueueFull,
    /// The receiver refused it for good.
    Refused,
    /// The run was over before it was taken.
    Unsent,
}

impl Reason {
    const ALL: [(Self, &'static str); 3] =
        [(Self::QueueFull, "queue_full"), (Self::Refused, "refused"), (Self::Unsent, "unsent")];
}

/// How many of one sink, by reason.
#[derive(Debug, Default)]
pub(super) struct Drops([AtomicU64; Reason::ALL.len()]);

impl Drops {
    pub(super) fn add(&self, reason: Reason, count: usize) {
        self.0[reason as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Each reason's name and count.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Reason::ALL.iter().map(|(reason, name)| (*name, self.0[*reason as usize].load(Ordering::Relaxed)))
    }

    /// All of them together.
    pub(super) fn sum(&self) -> u64 {
        self.counts().map(|(_, count)| count).sum()
    }
}
