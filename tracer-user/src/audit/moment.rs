//! The moment that a line of the log means: nginx writes its local time, to the second.

use jiff::{civil::DateTime, tz::TimeZone};

/// A line is read moments after it was written; what is this close to now (s) is in the zone it was read in.
const NEAR: i64 = 600;

/// And this close (s) once another zone is allowed for.
const AT_ONCE: i64 = 60;

/// All zones lie a multiple of this (s) off UTC.
const QUARTER: i64 = 900;

/// The offsets that zones have (s).
const OFFSETS: std::ops::RangeInclusive<i64> = -12 * 3600..=14 * 3600;

/// Seconds since 1970 of a local time that was read at `now`, by the zone of this host.
///
/// nginx may run in another zone, in a container say, and for an hour of autumn a local time means two moments: both show
/// as an offset of whole quarters of an hour between the line and now.
pub fn unix_seconds(local: DateTime, host: &TimeZone, now: i64) -> i64 {
    let here = seconds(local, host);
    if (here - now).abs() <= NEAR {
        return here;
    }
    let utc = seconds(local, &TimeZone::UTC);
    let offset = (utc - now + QUARTER / 2).div_euclid(QUARTER) * QUARTER;
    let there = utc - offset;
    if OFFSETS.contains(&offset) && (there - now).abs() <= AT_ONCE { there } else { here }
}

fn seconds(local: DateTime, zone: &TimeZone) -> i64 {
    zone.to_ambiguous_timestamp(local).compatible().map_or(0, |timestamp| timestamp.as_second())
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    /// 2026-11-20T11:39:26 UTC.
    const NOW: i64 = 1_795_174_766;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[test]
    fn the_zone_of_the_host_is_the_first_choice() {
        assert_eq!(unix_seconds(date(2026, 11, 20).at(12, 39, 25, 0), &berlin(), NOW), NOW - 1);
        assert_eq!(unix_seconds(date(2026, 11, 20).at(12, 30, 26, 0), &berlin(), NOW), NOW - 540);
    }

    #[test]
    fn another_zone_shows_in_the_distance() {
        for (hour, minute) in [(11, 39), (6, 39), (17, 9), (17, 24), (1, 39)] {
            let local = date(2026, 11, 20).at(hour, minute, 24, 0);
            assert_eq!(unix_seconds(local, &berlin(), NOW), NOW - 2, "{hour}:{minute}");
        }
        let local = date(2026, 11, 21).at(1, 39, 24, 0);
        assert_eq!(unix_seconds(local, &berlin(), NOW), NOW - 2);
    }

    #[test]
    fn the_hour_that_comes_twice_is_told_apart() {
        let local = date(2026, 10, 25).at(2, 30, 0, 0);
        let summer = seconds(date(2026, 10, 25).at(0, 30, 0, 0), &TimeZone::UTC);
        assert_eq!(unix_seconds(local, &berlin(), summer + 1), summer);
        assert_eq!(unix_seconds(local, &berlin(), summer + 3_601), summer + 3_600);
    }

    #[test]
    fn an_old_line_keeps_its_time() {
        let local = date(2026, 11, 19).at(12, 39, 26, 0);
        assert_eq!(unix_seconds(local, &berlin(), NOW), NOW - 86_400);
        let local = date(2026, 11, 20).at(11, 33, 0, 0);
        assert_eq!(unix_seconds(local, &berlin(), NOW), NOW - 3_600 - 386);
    }
}
