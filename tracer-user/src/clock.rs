//! The two clocks: the kernel side's monotonic one, and the wall's.

use nix::time::{ClockId, clock_gettime};

use crate::cause::WallClock;

fn now(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Nanoseconds of CLOCK_MONOTONIC, as `bpf_ktime_get_ns` counts them.
pub fn monotonic_ns() -> u64 {
    now(ClockId::CLOCK_MONOTONIC).unsigned_abs()
}

/// Translates with the clocks' distance at this moment, so that a wall clock that is set while tracing is followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    fn unix_ns(&self, monotonic_ns: u64) -> i64 {
        let distance = now(ClockId::CLOCK_REALTIME) - now(ClockId::CLOCK_MONOTONIC);
        distance.saturating_add_unsigned(monotonic_ns)
    }
}
