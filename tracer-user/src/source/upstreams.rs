//! How many exchanges each upstream has had, as it was emitted last. Bounded: whoever may choose upstreams may choose many.

use lru::LruCache;

use crate::model::{budget, upstream::Upstream};

/// The upstreams that are counted one by one.
#[derive(Debug)]
pub struct Upstreams {
    /// By when their counts have changed last.
    known: LruCache<Upstream, Known>,
    left_out: u64,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self { known: LruCache::new(budget::UPSTREAMS), left_out: 0 }
    }
}

#[derive(Debug)]
struct Known {
    /// What it had before the kernel side forgot it and began anew.
    before: u64,
    /// What the kernel side said last.
    last: u64,
}

impl Upstreams {
    /// Takes in what the kernel side counts; returns whose count has changed, and to what.
    pub fn look(&mut self, counted: Vec<(Upstream, u64)>) -> Vec<(Upstream, u64)> {
        let (mut news, mut taken_up) = (Vec::new(), 0);
        for (upstream, exchanges) in counted {
            let known = match self.known.peek(&upstream) {
                Some(Known { last, .. }) if *last == exchanges => continue,
                Some(Known { before, last }) => {
                    Known { before: if exchanges < *last { before + last } else { *before }, last: exchanges }
                }
                // It is seen again at the next look, if the kernel side still has it by then.
                None if taken_up == budget::NEW_UPSTREAMS => continue,
                None => {
                    taken_up += 1;
                    Known { before: 0, last: exchanges }
                }
            };
            let total = known.before + known.last;
            let forgotten = self.known.push(upstream.clone(), known).filter(|(other, _)| *other != upstream);
            self.left_out += u64::from(forgotten.is_some());
            news.push((upstream, total));
        }
        news
    }

    /// How many were forgotten for new ones.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn upstream(number: usize) -> Upstream {
        let [.., a, b, c] = number.to_be_bytes();
        Upstream::Inet(SocketAddr::from(([127, a, b, c], 80)))
    }

    #[test]
    fn what_changed_is_emitted_and_a_count_that_began_anew_goes_on() {
        let mut upstreams = Upstreams::default();
        assert_eq!(upstreams.look(vec![(upstream(1), 5)]), [(upstream(1), 5)]);
        assert_eq!(upstreams.look(vec![(upstream(1), 5)]), []);
        assert_eq!(upstreams.look(vec![(upstream(1), 2)]), [(upstream(1), 7)]);
        assert_eq!(upstreams.look(vec![(upstream(1), 3)]), [(upstream(1), 8)]);
    }

    #[test]
    fn those_long_without_an_exchange_are_forgotten_first_and_counted() {
        let mut upstreams = Upstreams::default();
        let many = 3 * budget::UPSTREAMS.get();
        for number in 1..many {
            // The first one goes on all the time.
            let news = upstreams.look(vec![(upstream(0), number as u64), (upstream(number), 1)]);
            assert_eq!(news.len(), 2);
        }
        assert_eq!(upstreams.known.len(), budget::UPSTREAMS.get());
        assert_eq!(upstreams.left_out(), (many - budget::UPSTREAMS.get()) as u64);
        assert!(upstreams.known.contains(&upstream(0)));
    }

    #[test]
    fn a_flood_of_new_ones_is_taken_up_little_by_little() {
        let mut upstreams = Upstreams::default();
        let flood: Vec<_> = (0..1_000).map(|number| (upstream(number), 1)).collect();
        assert_eq!(upstreams.look(flood.clone()).len(), budget::NEW_UPSTREAMS);
        assert_eq!(upstreams.look(flood).len(), budget::NEW_UPSTREAMS);
    }
}
