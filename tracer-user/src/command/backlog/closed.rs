//! Listeners that were closed. Bounded: whoever opens and closes them may do so as often as he likes.

use std::collections::{HashMap, VecDeque};

use super::queue::Queue;
use crate::{model::budget, queues::Name};

/// The closed listeners, each as it was at its end; of those that had to be forgotten, the sums.
#[derive(Debug, Default)]
pub(super) struct Closed {
    kept: VecDeque<Queue>,
    names: HashMap<Name, u64>,
    forgotten: u64,
    forgotten_emitted: usize,
    /// Of the forgotten ones, packets that met a full queue, by network namespace: at those that are emitted, and at the others.
    sums: HashMap<u32, (u64, u64)>,
    /// Such packets in namespaces that found no room there.
    left_out: u64,
}

impl Closed {
    /// Takes in one more; returns the oldest one, if that is forgotten for it. `is_emitted` says of a listener whether it is emitted.
    pub fn push(&mut self, queue: Queue, is_emitted: impl Fn(&Queue) -> bool) -> Option<Queue> {
        *self.names.entry(queue.name()).or_default() += 1;
        self.kept.push_back(queue);
        if self.kept.len() <= budget::CLOSED_LISTENERS {
            return None;
        }
        let oldest = self.kept.pop_front()?;
        if let Some(times) = self.names.get_mut(&oldest.name()) {
            *times -= 1;
            if *times == 0 {
                self.names.remove(&oldest.name());
            }
        }
        let is_emitted = is_emitted(&oldest);
        self.forgotten += 1;
        self.forgotten_emitted += usize::from(is_emitted);
        let drops = oldest.syn_drops + oldest.ack_drops;
        if drops > 0 && self.sums.len() >= budget::NAMESPACES && !self.sums.contains_key(&oldest.netns) {
            self.left_out += drops;
        } else if drops > 0 {
            let (emitted, elsewhere) = self.sums.entry(oldest.netns).or_default();
            *if is_emitted { emitted } else { elsewhere } += drops;
        }
        Some(oldest)
    }

    /// Those that are kept, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.kept.iter()
    }

    /// Whether this one is among them.
    pub fn has(&self, name: Name) -> bool {
        self.names.contains_key(&name)
    }

    /// How many were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many of the forgotten ones were emitted.
    pub fn forgotten_emitted(&self) -> usize {
        self.forgotten_emitted
    }

    /// Packets that met a full queue and are in no sum, for want of room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Of the forgotten ones, packets that met a full queue, by network namespace: at those that are emitted, and at the others.
    pub fn sums(&self) -> &HashMap<u32, (u64, u64)> {
        &self.sums
    }
}

#[cfg(test)]
mod tests {
    use wire::accept_queue::Listener;
    use zerocopy::FromZeros as _;

    use super::*;

    fn queue(number: u64, drops: u64) -> Queue {
        let mut listener = Listener::new_zeroed();
        (listener.sock, listener.netns, listener.syn_drops) = (number, 7, drops);
        Queue::of(&listener, 1, None, None)
    }

    #[test]
    fn the_oldest_are_forgotten_and_their_sums_are_not() {
        let mut closed = Closed::default();
        let count = budget::CLOSED_LISTENERS as u64 + 100;
        for number in 0..count {
            let forgotten = closed.push(queue(number, 2), |queue| queue.sock % 2 == 0);
            assert_eq!(forgotten.is_some(), number >= budget::CLOSED_LISTENERS as u64);
        }
        assert_eq!(
            (closed.kept.len(), closed.names.len()),
            (budget::CLOSED_LISTENERS, budget::CLOSED_LISTENERS)
        );
        assert_eq!((closed.forgotten(), closed.forgotten_emitted()), (100, 50));
        assert_eq!(closed.sums()[&7], (100, 100));
        assert!(!closed.has((99, 0)) && closed.has((100, 0)));
    }
}
