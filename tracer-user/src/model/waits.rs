//! How long connections waited to be accepted.

use wire::accept_queue::{BUCKETS, longest_in};

/// What a histogram of waits amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// How many waits were seen from beginning to end.
    pub count: u64,
    /// Half of them waited no longer, in us; at most an eighth above the true value.
    pub p50_us: u64,
    /// All but one in a hundred waited no longer, as exactly.
    pub p99_us: u64,
    /// The longest one; exact.
    pub max_us: u64,
}

impl Waits {
    /// Of counts by [`wire::accept_queue::bucket`], and the longest wait (ns); none where nothing was counted.
    pub fn of(counts: &[u64; BUCKETS], longest_ns: u64) -> Option<Self> {
        let count: u64 = counts.iter().sum();
        let max_us = longest_ns / 1_000;
        let at = |percent: u64| {
            let rank = (count * percent).div_ceil(100);
            let mut seen = 0;
            let bucket = counts.iter().position(|&waits| {
                seen += waits;
                seen >= rank
            });
            bucket.map_or(max_us, longest_in).min(max_us)
        };
        (count > 0).then(|| Self { count, p50_us: at(50), p99_us: at(99), max_us })
    }
}

#[cfg(test)]
mod tests {
    use wire::accept_queue::bucket;

    use super::*;

    #[test]
    fn percentiles_are_upper_bounds_and_never_above_the_longest_wait() {
        let mut counts = [0; BUCKETS];
        for us in [5, 100, 100, 900] {
            counts[bucket(us)] += 1;
        }
        let waits = Waits::of(&counts, 900_400).unwrap();
        assert!((100..=112).contains(&waits.p50_us), "{waits:?}");
        assert_eq!((waits.count, waits.p99_us, waits.max_us), (4, 900, 900));
        assert_eq!(Waits::of(&[0; BUCKETS], 0), None);
    }
}
