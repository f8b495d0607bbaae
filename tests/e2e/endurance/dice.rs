//! Chance that can be had again.

use std::env;
use std::time::SystemTime;

use anyhow::{Context, Result};

/// A small generator (xorshift): the same seed gives the same numbers.
pub struct Dice(u64);

impl Dice {
    /// From `RIG_SEED`, or else from the clock; gives back the seed, too.
    pub fn new() -> Result<(Dice, u64)> {
        let seed = match env::var("RIG_SEED") {
            Ok(given) => given.parse().with_context(|| format!("RIG_SEED is a whole number, not {given}"))?,
            Err(_) => u64::from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos()),
        };
        // A state of zero would stay zero.
        Ok((Dice(seed | 1 << 63), seed))
    }

    /// A number less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}
