//! The account of what was lost.

use std::time::Duration;

use wire::Stats;

use crate::model::stream::LossReason;

/// How long a standby instance of a program may take to be called after the first: it is the same event.
pub const SETTLING: Duration = Duration::from_millis(20);

/// Events that no program saw.
#[derive(Debug, Default)]
pub struct Missed {
    /// What the last look found.
    before: u64,
    /// How many have been emitted.
    pub emitted: u64,
}

impl Missed {
    /// Takes in a look; returns how many are new. One that a standby instance is about to see is missed only for a moment, so what
    /// counts is what two looks found.
    pub fn look(&mut self, missed: u64) -> u64 {
        let sure = missed.min(std::mem::replace(&mut self.before, missed));
        let new = sure.saturating_sub(self.emitted);
        self.emitted += new;
        new
    }
}

/// What the kernel side counts as lost since it began, by reason.
pub fn losses(stats: &Stats) -> [(LossReason, u64); 7] {
    [
        (LossReason::RingFull, stats.lost),
        (LossReason::Missed, stats.returns_missed),
        (LossReason::WorkersUntracked, stats.workers_untracked),
        (LossReason::ProcessesUnkept, stats.processes_unkept),
        (LossReason::SignalsUnkept, stats.signals_unkept),
        (LossReason::PacketsUnkept, stats.packets_unkept),
        (LossReason::ActsUnkept, stats.acts_unkept),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_copy_sees_a_moment_later_is_not_missed() {
        let mut missed = Missed::default();
        // The first program has missed one, and its standby instance's turn comes after this look.
        assert_eq!([missed.look(1), missed.look(0), missed.look(0)], [0, 0, 0]);
        // Nobody saw these.
        assert_eq!([missed.look(2), missed.look(2), missed.look(2)], [0, 2, 0]);
        assert_eq!([missed.look(3), missed.look(3)], [0, 1]);
    }
}
