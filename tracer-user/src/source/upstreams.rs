//! How many exchanges each upstream has had, as it was told last. Bounded: whoever may choose upstreams may choose many.

use std::collections::HashMap;

use crate::model::{budget, upstream::Upstream};

/// The upstreams that are counted one by one.
#[derive(Debug, Default)]
pub struct Upstreams {
    known: HashMap<Upstream, Known>,
    looks: u64,
    left_out: u64,
}

#[derive(Debug)]
struct Known {
    /// What it had before the kernel side forgot it and began anew.
    before: u64,
    /// What the kernel side said last.
    last: u64,
    /// The look at which that changed.
    changed: u64,
}

impl Upstreams {
    /// Takes in what the kernel side counts; returns whose count has changed, and to what.
    pub fn look(&mut self, counted: Vec<(Upstream, u64)>) -> Vec<(Upstream, u64)> {
        self.looks += 1;
        let (mut news, mut taken_up) = (Vec::new(), 0);
        for (upstream, exchanges) in counted {
            match self.known.get_mut(&upstream) {
                Some(known) if known.last == exchanges => continue,
                Some(known) => {
                    if exchanges < known.last {
                        known.before += known.last;
                    }
                    (known.last, known.changed) = (exchanges, self.looks);
                }
                // It is seen again at the next look, if the kernel side still has it by then.
                None if taken_up == budget::NEW_UPSTREAMS => continue,
                None => {
                    taken_up += 1;
                    self.make_room();
                    let known = Known { before: 0, last: exchanges, changed: self.looks };
                    self.known.insert(upstream.clone(), known);
                }
            }
            let total = self.known.get(&upstream).map_or(exchanges, |known| known.before + known.last);
            news.push((upstream, total));
        }
        news
    }

    fn make_room(&mut self) {
        if self.known.len() < budget::UPSTREAMS {
            return;
        }
        let oldest =
            self.known.iter().min_by_key(|(_, known)| known.changed).map(|(upstream, _)| upstream.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
            self.left_out += 1;
        }
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
    fn what_changed_is_told_and_a_count_that_began_anew_goes_on() {
        let mut upstreams = Upstreams::default();
        assert_eq!(upstreams.look(vec![(upstream(1), 5)]), [(upstream(1), 5)]);
        assert_eq!(upstreams.look(vec![(upstream(1), 5)]), []);
        assert_eq!(upstreams.look(vec![(upstream(1), 2)]), [(upstream(1), 7)]);
        assert_eq!(upstreams.look(vec![(upstream(1), 3)]), [(upstream(1), 8)]);
    }

    #[test]
    fn those_long_without_an_exchange_are_forgotten_first_and_counted() {
        let mut upstreams = Upstreams::default();
        let many = 3 * budget::UPSTREAMS;
        for number in 1..many {
            // The first one goes on all the time.
            let news = upstreams.look(vec![(upstream(0), number as u64), (upstream(number), 1)]);
            assert_eq!(news.len(), 2);
        }
        assert_eq!(upstreams.known.len(), budget::UPSTREAMS);
        assert_eq!(upstreams.left_out(), (many - budget::UPSTREAMS) as u64);
        assert!(upstreams.known.contains_key(&upstream(0)));
    }

    #[test]
    fn a_flood_of_new_ones_is_taken_up_little_by_little() {
        let mut upstreams = Upstreams::default();
        let flood: Vec<_> = (0..1_000).map(|number| (upstream(number), 1)).collect();
        assert_eq!(upstreams.look(flood.clone()).len(), budget::NEW_UPSTREAMS);
        assert_eq!(upstreams.look(flood).len(), budget::NEW_UPSTREAMS);
    }
}
