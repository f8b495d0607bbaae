//! Lines that nginx writes to several logs at once: each failure counts once.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use crate::model::budget;

/// How long (ns) the same line of another log means the same failure.
const MEMORY_NS: i64 = 10_000_000_000;

/// Knows the last lines of each log.
#[derive(Debug)]
pub struct Once {
    logs: usize,
    hasher: RandomState,
    /// How often each line came from each log: lately, and in the span before.
    lately: HashMap<u64, Vec<u32>>,
    before: HashMap<u64, Vec<u32>>,
    since_ns: i64,
}

impl Once {
    /// For so many logs.
    pub fn new(logs: usize) -> Self {
        let (lately, before) = (HashMap::new(), HashMap::new());
        Self { logs, hasher: RandomState::new(), lately, before, since_ns: 0 }
    }

    /// There is one log more; returns its number.
    pub fn add(&mut self) -> usize {
        self.logs += 1;
        self.logs - 1
    }

    /// Whether this line of a log reports a failure that no other log has reported. Within one log, each line is a failure:
    /// the same request may fail twice in a second.
    pub fn is_new(&mut self, log: usize, line: &str, now_ns: i64) -> bool {
        if self.logs < 2 {
            return true;
        }
        if now_ns - self.since_ns > MEMORY_NS || self.lately.len() >= budget::REPEATED_LINES / 2 {
            self.before = std::mem::take(&mut self.lately);
            self.since_ns = now_ns;
        }
        let hash = self.hasher.hash_one(line);
        let known = self.before.get(&hash).cloned();
        let counts = self.lately.entry(hash).or_insert_with(|| known.unwrap_or_else(|| vec![0; self.logs]));
        counts.resize(self.logs, 0);
        counts[log] += 1;
        counts.iter().enumerate().all(|(other, count)| other == log || *count < counts[log])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_two_logs_counts_once_and_twice_in_one_log_twice() {
        let mut once = Once::new(2);
        assert!(once.is_new(0, "a", 1));
        assert!(once.is_new(0, "a", 1));
        assert!(!once.is_new(1, "a", 2));
        assert!(!once.is_new(1, "a", 2));
        assert!(once.is_new(1, "a", 2));
        assert!(once.is_new(1, "b", 2));
        assert!(!once.is_new(0, "b", MEMORY_NS + 2));
    }

    #[test]
    fn one_log_needs_no_memory() {
        let mut once = Once::new(1);
        assert!(once.is_new(0, "a", 1) && once.is_new(0, "a", 1));
        assert!(once.lately.is_empty());
    }

    #[test]
    fn lines_are_forgotten() {
        let mut once = Once::new(2);
        assert!(once.is_new(0, "a", 1));
        assert!(once.is_new(0, "b", 2 * MEMORY_NS));
        assert!(once.is_new(0, "c", 4 * MEMORY_NS));
        assert!(once.is_new(1, "a", 4 * MEMORY_NS));
        assert!(once.lately.len() + once.before.len() <= 3);
    }
}
