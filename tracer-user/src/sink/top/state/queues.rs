//! Accept queues: how full they were, and who suffered from it.

use std::collections::VecDeque;

use super::State;
use crate::{
    model::{
        cause::Cause,
        stream::Depth,
        upstream::Upstream,
        verdict::{Delayed, Verdict},
    },
    roots::MOST_KINDS,
};

/// Waits of connections that are kept for each listener.
const MOST_WAITS: usize = 512;

/// A listener's accept queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Connections that wait; none where nobody looked.
    pub depth: Option<u32>,
    /// How many may.
    pub limit: u32,
    /// The most that did.
    pub deepest: u32,
    /// Looks that found it full.
    pub full: u64,
    /// Exchanges that failed because it was full.
    pub failed: u64,
    /// Exchanges that succeeded late because a SYN was dropped.
    pub late: u64,
    /// Exchanges that waited in it until nginx gave up.
    pub unaccepted: u64,
    /// How long the last ones waited in it, in microseconds, of exchanges that were emitted.
    waits: VecDeque<u64>,
}

impl Queue {
    /// The median wait and the one that 1 of 100 exceeds, in microseconds; none where none is known.
    pub fn waits(&self) -> Option<(u64, u64)> {
        let mut sorted: Vec<_> = self.waits.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len().checked_sub(1)?) * percent / 100).copied();
        Some((at(50)?, at(99)?))
    }
}

impl State {
    pub(super) fn depth(&mut self, seen: &Depth) {
        let Some(queue) = self.queue(&seen.listener) else { return };
        queue.depth = Some(seen.depth);
        queue.limit = seen.limit;
        queue.deepest = queue.deepest.max(seen.depth);
        queue.full += u64::from(seen.depth > seen.limit);
    }

    fn queue(&mut self, listener: &Upstream) -> Option<&mut Queue> {
        let is_known = self.queues.contains_key(listener);
        (is_known || self.queues.len() < MOST_KINDS).then(|| self.queues.entry(listener.clone()).or_default())
    }

    pub(super) fn of_queue(&mut self, verdict: &Verdict) {
        let is_full = verdict.cause.cause() == "accept_queue_overflow";
        let is_unaccepted = verdict.cause == Cause::TimeoutNeverAccepted;
        let moments = &verdict.moments;
        let wait = moments.connected.zip(moments.accepted).map(|(from, to)| to.saturating_sub(from));
        if !is_full && !is_unaccepted && wait.is_none() && verdict.queue.is_none() {
            return;
        }
        let Some(queue) = self.queue(&verdict.upstream) else { return };
        queue.failed += u64::from(is_full);
        queue.unaccepted += u64::from(is_unaccepted);
        if let Some(seen) = verdict.queue {
            queue.limit = seen.limit;
            queue.deepest = queue.deepest.max(seen.depth);
        }
        if let Some(us) = wait {
            if queue.waits.len() == MOST_WAITS {
                queue.waits.pop_front();
            }
            queue.waits.push_back(u64::try_from(us).unwrap_or(0));
        }
    }

    /// Takes in an exchange that succeeded late.
    pub fn delayed(&mut self, delayed: &Delayed) {
        if let Some(queue) = self.queue(&delayed.upstream) {
            queue.late += 1;
        }
    }
}
