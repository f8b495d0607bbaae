//! How often something happened lately, second by second.

/// So many seconds are kept: ten minutes.
pub const KEPT: usize = 600;

/// Counts of the last ten minutes, one for each second.
#[derive(Clone, Debug)]
pub struct Rate {
    counts: Box<[u32; KEPT]>,
    /// The second of the newest count, since 1970.
    newest: i64,
}

impl Default for Rate {
    fn default() -> Self {
        Self { counts: Box::new([0; KEPT]), newest: 0 }
    }
}

fn second(unix_ns: i64) -> i64 {
    unix_ns.div_euclid(1_000_000_000)
}

fn place(second: i64) -> usize {
    usize::try_from(second.rem_euclid(KEPT as i64)).unwrap_or(0)
}

impl Rate {
    /// One more, at a moment (ns since 1970). What is older than all that is kept is not counted.
    pub fn add(&mut self, unix_ns: i64) {
        let second = second(unix_ns);
        if second > self.newest {
            // The seconds in between had none.
            let passed = (second - self.newest).min(KEPT as i64);
            (second - passed + 1..=second).for_each(|one| self.counts[place(one)] = 0);
            self.newest = second;
        }
        if self.newest - second < KEPT as i64 {
            let count = &mut self.counts[place(second)];
            *count = count.saturating_add(1);
        }
    }

    fn at(&self, second: i64) -> u64 {
        let is_kept = second <= self.newest && self.newest - second < KEPT as i64;
        if is_kept { self.counts[place(second)].into() } else { 0 }
    }

    /// How many there were in the last `seconds` before `now` (ns since 1970), with the second that has begun.
    pub fn within(&self, now: i64, seconds: i64) -> u64 {
        let now = second(now);
        (now - seconds + 1..=now).map(|one| self.at(one)).sum()
    }

    /// The last `bars` times `width` seconds before `now`, the oldest first.
    pub fn bars(&self, now: i64, bars: usize, width: i64) -> Vec<u64> {
        let bar = |ago: usize| self.within(now - ago as i64 * width * 1_000_000_000, width);
        (0..bars).rev().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const NOON: i64 = 1_795_174_766 * SECOND;

    #[test]
    fn counts_are_of_the_time_before_now() {
        let mut rate = Rate::default();
        for ago in [0, 0, 3, 59, 60, 599, 600] {
            rate.add(NOON - ago * SECOND);
        }
        assert_eq!([1, 5, 60, 61, 600].map(|seconds| rate.within(NOON, seconds)), [2, 3, 4, 5, 6]);
        assert_eq!(rate.within(NOON + 10 * SECOND, 5), 0);
        assert_eq!(rate.within(NOON + 700 * SECOND, 600), 0);
        assert_eq!(rate.bars(NOON, 4, 1), [1, 0, 0, 2]);
        assert_eq!(rate.bars(NOON, 2, 30), [1, 3]);
    }

    #[test]
    fn a_second_is_forgotten_once_its_place_is_taken() {
        let mut rate = Rate::default();
        rate.add(NOON);
        rate.add(NOON + KEPT as i64 * SECOND);
        assert_eq!(rate.within(NOON + KEPT as i64 * SECOND, KEPT as i64), 1);
        // The clock was set back for longer than is kept.
        rate.add(NOON - SECOND);
        assert_eq!(rate.within(NOON + KEPT as i64 * SECOND, KEPT as i64), 1);
    }
}
