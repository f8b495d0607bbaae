//! Who listens near an upstream at which nobody does: on its port at another address, or under its name in another place.

use lru::LruCache;

use crate::{
    ledger::Exchange,
    model::{
        budget,
        near::{Asked, Near},
    },
};

/// A look is of use for what failed so long after it at most (ns).
pub const FRESH_NS: u64 = 1_000_000_000;

/// How long a listener that was closed is named (ns).
pub const CLOSED_FOR_NS: u64 = 60_000_000_000;

/// What was asked, by the exchange that asked it.
pub fn asked(exchange: &Exchange) -> Asked {
    let from = if exchange.path.is_some() { exchange.nginx.nginx.tgid } else { exchange.nginx.netns };
    (exchange.upstream(), from)
}

/// Whether nobody listened where nginx asked: ENOENT or ECONNREFUSED while it connected.
pub fn is_wanted(exchange: &Exchange) -> bool {
    const ENOENT: u32 = 2;
    const ECONNREFUSED: u32 = 111;
    exchange.was_connecting() && matches!(exchange.nginx.error, ENOENT | ECONNREFUSED)
}

/// The last look at each upstream's neighbours.
#[derive(Debug)]
pub struct Nears(LruCache<Asked, Near>);

impl Default for Nears {
    fn default() -> Self {
        Self(LruCache::new(budget::NEARS))
    }
}

impl Nears {
    /// Takes in a look.
    pub fn learn(&mut self, near: Near) {
        self.0.put(near.asked.clone(), near);
    }

    /// The one that is of use for this exchange; none where nobody looked in time.
    pub fn of(&self, exchange: &Exchange) -> Option<Near> {
        if !is_wanted(exchange) {
            return None;
        }
        let near = self.0.peek(&asked(exchange))?;
        (near.ns.saturating_add(FRESH_NS) >= exchange.nginx.ended_ns).then(|| near.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{at, connecting};
    use crate::model::upstream::Upstream;

    fn near(asked: Asked, ms: u64) -> Near {
        Near { ns: at(ms), asked, neighbours: Vec::new(), others: 0, closed: None }
    }

    #[test]
    fn a_look_serves_what_failed_within_a_second_after_it_and_no_other() {
        let exchange = Exchange::new(&connecting(2_000, 111));
        let mut nears = Nears::default();
        nears.learn(near(asked(&exchange), 999));
        assert_eq!(nears.of(&exchange), None);
        nears.learn(near(asked(&exchange), 1_000));
        assert!(nears.of(&exchange).is_some());
        assert_eq!(nears.of(&Exchange::new(&connecting(2_000, 110))), None);
        let mut elsewhere = connecting(2_000, 111);
        elsewhere.nginx.netns = 7;
        assert_eq!(nears.of(&Exchange::new(&elsewhere)), None);
    }

    #[test]
    fn the_oldest_look_goes_first() {
        let mut nears = Nears::default();
        for (number, ms) in (0..).zip(0..budget::NEARS.get() as u64 + 5) {
            nears.learn(near((Upstream::Unix("/a".into()), number), ms));
        }
        assert_eq!(nears.0.len(), budget::NEARS.get());
        assert!(nears.0.iter().all(|((_, from), _)| *from >= 5));
    }
}
