//! The two clocks: the kernel side's monotonic one, and the wall's.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// From CLOCK_MONOTONIC to CLOCK_REALTIME, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffset(pub i64);

/// How much the measured offset may differ, in ns, while nobody has set the wall clock: it is slewed together with the
/// monotonic one, and two readings are never of the same moment.
const SLACK_NS: u64 = 1_000_000;

/// Nanoseconds of a clock.
pub fn now(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

/// Nanoseconds of CLOCK_MONOTONIC, as `bpf_ktime_get_ns` counts them.
pub fn monotonic_ns() -> u64 {
    now(ClockId::CLOCK_MONOTONIC).unsigned_abs()
}

/// In nanoseconds, or as many as there can be.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How far the wall clock is ahead of the monotonic one at this moment.
pub fn clock_offset() -> ClockOffset {
    ClockOffset(now(ClockId::CLOCK_REALTIME) - now(ClockId::CLOCK_MONOTONIC))
}

/// When this host booted, in nanoseconds since 1970, as the wall clock stands now.
pub fn booted_ns() -> i64 {
    now(ClockId::CLOCK_REALTIME) - now(ClockId::CLOCK_BOOTTIME)
}

/// The new offset, if the wall clock was set since `known` was measured.
pub fn changed_clock_offset(known: ClockOffset) -> Option<ClockOffset> {
    let clock_offset = clock_offset();
    (clock_offset.0.abs_diff(known.0) > SLACK_NS).then_some(clock_offset)
}
